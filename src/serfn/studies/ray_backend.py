"""Jobs of a study as tasks of a Ray cluster; all its machines must see the study's folder under one path."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from serfn.core.errors import ConfigError
from serfn.core.extras import extra
from serfn.studies.job import run_logged

LOCAL = "local"
"""Address that starts a cluster on this machine instead of joining one."""

_GRACE_S = 60.0
_JOIN_S = 40.0
_JOIN = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)"


class RayBackend:
    """Runs each job as a Ray task with one CPU.

    Args:
        root: Folder of the study.
        address: `local`, `auto` for the cluster of this machine, or the address of another.
        cores: CPUs of a local cluster.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, root: Path, address: str, cores: int) -> None:
        with extra("ray"):
            import ray
            import ray.exceptions
        self._ray = ray
        self._root = root.resolve()
        local = address == LOCAL
        if not local:
            _try_to_join(address)
        try:
            ray.init(
                address=LOCAL if local else address,
                num_cpus=cores if local else None,
                include_dashboard=False if local else None,
                log_to_driver=False,
                configure_logging=False,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"cannot use the Ray cluster at '{address}': {error}; start it, or use 'local'"
            ) from error
        self.slots = cores if local else max(1, int(ray.cluster_resources().get("CPU", 1)))
        # A job continues from its own checkpoint when the study is started again; Ray must not repeat it.
        self._task = ray.remote(num_cpus=1, max_retries=0)(run_logged)
        self._running: dict[Any, str] = {}

    def start(self, name: str) -> None:
        """Submit the job in folder `name`."""
        self._running[self._task.remote(self._root, name)] = name

    def finished(self) -> list[tuple[str, str | None]]:
        """Return the jobs that ended since the last call, each with the reason if it failed."""
        if not self._running:
            return []
        references = list(self._running)
        ready, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        return [(self._running.pop(reference), self._outcome(reference)) for reference in ready]

    def interrupt(self) -> None:
        """Ask all jobs to checkpoint and end, and wait for them."""
        for reference in self._running:
            self._ray.cancel(reference, force=False)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=_GRACE_S)

    def close(self) -> None:
        """Leave the cluster; one that this study started ends."""
        self.interrupt()
        self._ray.shutdown()

    def _outcome(self, reference: Any) -> str | None:
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except exceptions.TaskCancelledError:
            return "stopped"
        except exceptions.RayError as error:
            return " ".join(str(error).split())


def _try_to_join(address: str, limit_s: float = _JOIN_S) -> None:
    """Join a cluster in a process of its own: where none answers, Ray waits for minutes and ends its process.

    Raises:
        ConfigError: There is no cluster at the address, or it does not answer in time.
    """
    try:
        joined = subprocess.run(
            [sys.executable, "-c", _JOIN, address],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
        )
    except subprocess.TimeoutExpired:
        reason = f"no answer within {limit_s:g} s"
    else:
        if joined.returncode == 0:
            return
        reason = (joined.stderr.strip().splitlines() or [f"Ray ends with status {joined.returncode}"])[-1]
    raise ConfigError(f"cannot use the Ray cluster at '{address}': {reason}; start it, or use 'local'")
