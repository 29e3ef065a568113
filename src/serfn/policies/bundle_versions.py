"""The versions of policy bundles, and how an older one is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from serfn.core.errors import CheckpointError
from serfn.core.format_version import Format

BUNDLE = Format(
    name="serfn-policy",
    kind="policy bundle",
    version=2,
    oldest=1,
    remedy="load it with the serfn that wrote it",
    error=CheckpointError,
)

_FLOW = {"kind": "affine", "conditioner": "mlp", "depth": 2, "permutation_seed": 0}
_FLOW_UNUSED = ("heads", "bins", "spline_bound")
"""Options that change nothing where the others have these values."""

_DENOISER = {"depth": 3, "encoder_depth": 2}
_FIXED: dict[str, dict[str, Any]] = {
    "flow": {"data_limit": 0.98},
    "flow_matching": {"prediction": "velocity", **_DENOISER},
    "distilled_flow": _DENOISER,
    "diffusion": {"train_steps": 100, **_DENOISER},
    "gaussian": {"data_limit": 0.98, "depth": 3},
    "gaussian_mixture": {"data_limit": 0.98, "depth": 3},
    "deterministic": {"noise": 0.2, "depth": 3},
}
"""Options of version 1 that are constants since, with the values that they have now."""


def migrated(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return a bundle's `config.json` as version 2 writes it.

    Raises:
        CheckpointError: It is of a version that is not read, or a policy that can no longer be made.
    """
    if BUNDLE.check(document, path) >= 2 or not isinstance(document.get("policy"), dict):
        return document
    policy = dict(document["policy"])
    _drop(policy, _FIXED.get(document.get("type", ""), {}), "policy", path)
    if isinstance(policy.get("flow"), dict):
        policy["flow"] = dict(policy["flow"])
        _drop(policy["flow"], _FLOW, "policy.flow", path)
        for name in _FLOW_UNUSED:
            policy["flow"].pop(name, None)
    if document.get("type") == "flow":
        policy["encoder"] = {
            name: policy.pop(f"encoder_{name}") for name in ("width", "depth") if f"encoder_{name}" in policy
        }
    return {**document, "policy": policy}


def _drop(options: dict[str, Any], fixed: dict[str, Any], where: str, path: Path) -> None:
    for name, value in fixed.items():
        if (found := options.pop(name, value)) != value:
            raise CheckpointError(
                f"'{path}' is a policy bundle of format 1 with {where}.{name} = {found!r}, which this serfn "
                f"has only as {value!r}; {BUNDLE.remedy}"
            )
