"""Compare the flow policy with iterative policies of equal width: latency, densities, training speed.

Every figure is the median of repeated calls in one run on one machine; ratios are to the flow policy.

    python benchmarks/bench_policy.py --device cpu --threads 1 --json policy.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from serfn.flows import FlowConfig
from serfn.policies import (
    ChunkPolicy,
    DiffusionConfig,
    DiffusionPolicy,
    FlowMatchingConfig,
    FlowMatchingPolicy,
    FlowPolicy,
    FlowPolicyConfig,
    LikelihoodPolicy,
    PolicyConfig,
    make_policy,
)
from serfn.policies.encoders.mlp import MLPEncoderConfig

Timings = dict[str, float]


@dataclass(frozen=True)
class Setting:
    """Problem size and where it runs."""

    device: str
    threads: int
    compiled: bool
    obs_dim: int = 90
    action_dim: int = 16
    chunk_size: int = 8
    width: int = 192
    batch: int = 192
    repeats: int = 30


def policies(width: int) -> dict[str, PolicyConfig]:
    flow = FlowPolicyConfig(FlowConfig(couplings=4, width=width), encoder=MLPEncoderConfig(width=width))
    return {
        "flow": flow,
        "flow matching, 10 steps": FlowMatchingConfig(steps=10, width=width),
        "diffusion, 10 steps": DiffusionConfig(steps=10, width=width),
        "diffusion, 100 steps": DiffusionConfig(steps=100, width=width),
    }


def median_ms(call: Callable[[], object], setting: Setting, repeats: int) -> float:
    """Median wall time of a call after three to warm up, the device drained before and after."""

    def drain() -> None:
        if setting.device == "cuda":
            torch.cuda.synchronize()

    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        drain()
        start = time.perf_counter()
        call()
        drain()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def make_update(policy: ChunkPolicy, setting: Setting, generator: torch.Generator) -> Callable[[], Tensor]:
    """One imitation step with gradient clipping, as training does it."""
    device = torch.device(setting.device)
    obs = torch.randn(setting.batch, setting.obs_dim, generator=generator, device=device)
    shape = (setting.batch, setting.chunk_size, setting.action_dim)
    actions = 2 * torch.rand(shape, generator=generator, device=device) - 1
    valid = torch.ones(shape[:2], dtype=torch.bool, device=device)
    policy.fit_statistics(obs, actions, valid)
    optimizer = torch.optim.Adam(
        policy.parameters(), lr=3e-4, fused=True, capturable=setting.device == "cuda"
    )

    def update() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss, _ = policy.imitation_loss(obs, actions, valid, generator=generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
        optimizer.step()
        return loss

    return update


def compile_networks(policy: ChunkPolicy) -> None:
    """Compile in place. A sampler's loop stays in Python: unrolled, a hundred steps compile for minutes."""
    if isinstance(policy, FlowPolicy):
        policy.flow.compile()
        policy.flow.inverse = torch.compile(policy.flow.inverse)
    elif isinstance(policy, FlowMatchingPolicy | DiffusionPolicy):
        policy.network.compile()


def captured(call: Callable[[], object], generator: torch.Generator) -> Callable[[], None]:
    """Record the call as a CUDA graph, after a warm-up on a side stream, and return its replay."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def measure(config: PolicyConfig, setting: Setting) -> Timings:
    device = torch.device(setting.device)
    generator = torch.Generator(device).manual_seed(0)
    policy = make_policy(config, setting.obs_dim, setting.action_dim, setting.chunk_size).to(device)
    if setting.compiled:
        compile_networks(policy)
    update = make_update(policy, setting, generator)
    timings: Timings = {}
    with torch.inference_mode():
        for batch in (1, 64):
            obs = torch.randn(batch, setting.obs_dim, generator=generator, device=device)

            def draw(obs: Tensor = obs) -> Tensor:
                return policy.sample(obs, generator=generator)

            timings[f"sample {batch} [ms]"] = median_ms(draw, setting, setting.repeats)
            if setting.device == "cuda" and not setting.compiled:
                replay = captured(draw, generator)
                timings[f"sample {batch}, graph [ms]"] = median_ms(replay, setting, setting.repeats)
        if isinstance(policy, LikelihoodPolicy):
            obs = torch.randn(setting.batch, setting.obs_dim, generator=generator, device=device)
            actions = policy.sample(obs, generator=generator)
            name = f"log-density {setting.batch} [ms]"
            timings[name] = median_ms(lambda: policy.log_prob(obs, actions), setting, setting.repeats)
    timings[f"update {setting.batch} [ms]"] = median_ms(update, setting, setting.repeats)
    if setting.device == "cuda" and not setting.compiled:
        replay = captured(update, generator)
        timings[f"update {setting.batch}, graph [ms]"] = median_ms(replay, setting, setting.repeats)
    return timings


def provenance(setting: Setting) -> dict[str, object]:
    """The machine, the library and the commit that the figures belong to."""
    folder = Path(__file__).parent
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=folder, capture_output=True, text=True
    )
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if setting.device == "cuda" else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": git.stdout.strip() or "unknown",
        "setting": asdict(setting),
    }


def show(results: dict[str, Timings], about: dict[str, object], console: Console) -> None:
    reference = next(iter(results.values()))
    table = Table(title=f"{about['gpu'] or about['cpu']}, torch {about['torch']}, commit {about['commit']}")
    table.add_column("policy")
    for column in reference:
        table.add_column(column, justify="right")
    for name, timings in results.items():
        cells = [
            f"{timings[column]:.3g}  ×{timings[column] / reference[column]:.2f}" if column in timings else "–"
            for column in reference
        ]
        table.add_row(name, *cells)
    console.print(table)
    console.print("Median; × is the ratio to the first row.")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument("--compile", action="store_true", help="compile the networks with torch.compile")
    parser.add_argument("--repeats", type=int, default=Setting.repeats, help="timed calls per figure")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    console = Console()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device: use --device cpu")
    torch.set_num_threads(options.threads)
    compiled = options.compile and _compiler_works(console)
    setting = Setting(options.device, options.threads, compiled, repeats=options.repeats)
    results = {}
    for name, config in policies(setting.width).items():
        results[name] = measure(config, setting)
        console.print(f"measured {name}")
    about = provenance(setting)
    show(results, about, console)
    if options.json:
        options.json.write_text(json.dumps({**about, "results": results}, indent=2) + "\n", encoding="utf-8")


def _compiler_works(console: Console) -> bool:
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(1))
    except Exception as error:  # the compiler raises many types, a missing C++ toolchain among them
        console.print(f"torch.compile does not work here, measuring eagerly: {type(error).__name__}")
        return False
    return True


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


if __name__ == "__main__":
    main()
