"""A decision as one graph: observations and random numbers in, the chosen chunk out, run by ONNX Runtime.

A robot asks for one chunk at a time. In PyTorch such a decision is some hundred operators on tiny tensors,
each of which costs more in calls than in arithmetic. The same decision exported once and run by ONNX Runtime
spends its time on the matrix products. Random numbers stay outside: every draw of the policy is an input of
the graph, taken from the same generator in the same order, so that graph and policy give the same chunks.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from serfn.core.errors import SerfnError
from serfn.core.extras import MissingExtraError, extra

Decide = Callable[[Tensor, torch.Generator], Tensor]
"""Observations `[batch, obs]` and a generator to chunks `[batch, chunk, action]` in (-1, 1)."""

TOLERANCE = 1e-5
"""Largest difference to the policy's chunks that a new graph may show."""

_OPSET, _NOTES = 17, "serfn"

_DRAWS = (torch.randn, torch.rand, torch.randint)


class GraphError(SerfnError):
    """A decision cannot be run as a graph; the message says why."""


@dataclass(frozen=True)
class _Draw:
    """One call for random numbers on the CPU: the name of the function in `torch`, and its arguments."""

    function: str
    arguments: tuple[Any, ...]
    dtype: str | None

    @classmethod
    def of(
        cls, function: Callable[..., Tensor], arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> _Draw:
        dtype = keywords.get("dtype")
        return cls(function.__name__, arguments, None if dtype is None else str(dtype).partition(".")[2])

    def repeat(self, generator: torch.Generator) -> Tensor:
        dtype = None if self.dtype is None else getattr(torch, self.dtype)
        return getattr(torch, self.function)(*self.arguments, generator=generator, dtype=dtype)


class _Recorded(TorchFunctionMode):
    """Notes every draw that takes a generator."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[_Draw] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _DRAWS and kwargs.get("generator") is not None:
            self.draws.append(_Draw.of(func, args, kwargs))
        return func(*args, **kwargs)


class _Replayed(TorchFunctionMode):
    """Answers every draw that takes a generator with the next of the given tensors."""

    def __init__(self, drawn: Sequence[Tensor]) -> None:
        super().__init__()
        self._drawn = iter(drawn)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _DRAWS and (kwargs or {}).get("generator") is not None:
            return next(self._drawn)
        return func(*args, **(kwargs or {}))


class _Decision(nn.Module):
    """`decide` as a module whose inputs are the observations and all draws."""

    def __init__(self, decide: Decide) -> None:
        super().__init__()
        self._decide = decide
        self._generator = torch.Generator()

    def forward(self, obs: Tensor, *drawn: Tensor) -> Tensor:
        with _Replayed(drawn):
            return self._decide(obs, self._generator)


class DecisionGraph:
    """A decision for a fixed number of observations, ready to run on the CPU.

    Args:
        model: What `export` returned, on this machine or another.

    Attributes:
        model: The same.
        batch: Observations per decision.

    Raises:
        GraphError: ONNX Runtime is not installed, or the model is none of ours.
    """

    def __init__(self, model: bytes) -> None:
        try:
            with extra("onnx"):
                import onnxruntime
        except MissingExtraError as error:
            raise GraphError(f"PyTorch itself decides: {error}") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
            notes = json.loads(self._session.get_modelmeta().custom_metadata_map[_NOTES])
            draws = [(name, tuple(arguments), dtype) for name, arguments, dtype in notes["draws"]]
            self.batch = int(notes["batch"])
        except Exception as error:
            raise GraphError(f"a stored decision cannot be run: {error}") from error
        if not {name for name, _, _ in draws} <= {function.__name__ for function in _DRAWS}:
            raise GraphError("a stored decision asks for random numbers of an unknown kind")
        self.model = model
        self._draws = [_Draw(*draw) for draw in draws]
        self._names = _input_names(self._draws)
        # What nothing depends on, such as the choice among one component, is no input of the graph.
        self._inputs = {entry.name for entry in self._session.get_inputs()}

    @classmethod
    def export(cls, decide: Decide, batch: int, obs_dim: int) -> DecisionGraph:
        """Export a decision.

        Args:
            decide: The decision in PyTorch, on the CPU and in float32; its weights are copied into the graph.
            batch: Observations per decision.
            obs_dim: Size of an observation.

        Raises:
            GraphError: ONNX or its runtime is not installed, an operator has no counterpart there, or the
                graph's chunks are not those of `decide`.
        """
        obs = torch.linspace(-1.0, 1.0, batch * obs_dim).view(batch, obs_dim)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad(), _Recorded() as recorded:
            decide(obs, generator)
        graph = cls(_export(decide, obs, recorded.draws))
        state = generator.get_state()
        with torch.no_grad():
            expected = decide(obs, generator)
        difference = float((graph(obs, generator.set_state(state)) - expected).abs().max())
        # Written so that NaN is refused.
        if not difference <= TOLERANCE:
            raise GraphError(
                f"the exported decision differs from the policy's by {difference:.2g}, more than "
                f"{TOLERANCE:g}, so that PyTorch itself decides"
            )
        return graph

    def __call__(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        """Decide, with the next random numbers of `generator`."""
        drawn = (draw.repeat(generator) for draw in self._draws)
        values = zip(self._names, (obs, *drawn), strict=True)
        feeds = {name: value.numpy() for name, value in values if name in self._inputs}
        (chunks,) = self._session.run(None, feeds)
        return torch.from_numpy(np.asarray(chunks))


def _input_names(draws: Sequence[_Draw]) -> list[str]:
    return ["obs", *(f"draw_{index}" for index in range(len(draws)))]


def _export(decide: Decide, obs: Tensor, draws: Sequence[_Draw]) -> bytes:
    """Return the decision as an ONNX model that notes its draws."""
    try:
        with extra("onnx"):
            import onnx
    except MissingExtraError as error:
        raise GraphError(f"PyTorch itself decides: {error}") from error
    drawn = [draw.repeat(torch.Generator()) for draw in draws]
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            # The exporter that traces can replay draws. It warns that it is the older one, and prints the
            # whole graph when it fails.
            warnings.simplefilter("ignore")
            torch.onnx.register_custom_op_symbolic(  # pyright: ignore[reportPrivateImportUsage]
                "aten::atanh", _atanh, _OPSET
            )
            path = Path(folder) / "decision.onnx"
            torch.onnx.export(
                _Decision(decide).eval(),
                (obs, *drawn),
                path,
                input_names=_input_names(draws),
                output_names=["chunks"],
                opset_version=_OPSET,
                dynamo=False,
            )
            model = onnx.load(path)
    except Exception as error:
        # Whatever the exporter raises, it is this policy that it cannot export.
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise GraphError(
            f"the decision cannot be exported, so that PyTorch itself decides: {reason}"
        ) from error
    notes = {"batch": len(obs), "draws": [[draw.function, draw.arguments, draw.dtype] for draw in draws]}
    onnx.helper.set_model_props(model, {_NOTES: json.dumps(notes)})
    return model.SerializeToString()


def _atanh(graph: Any, value: Any) -> Any:
    """ONNX has this operator; the exporter does not know."""
    return graph.op("Atanh", value)
