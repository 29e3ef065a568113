from __future__ import annotations

import io

from rich.console import Console

from serfn.cli.progress import LogProgress, RichProgress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_log_speaks_at_the_ends_and_now_and_then() -> None:
    clock, text = Clock(), io.StringIO()
    with LogProgress(Console(file=text, width=200), clock) as progress:
        progress.stage_started("offline", 100)
        for _ in range(10):
            clock.now += 4.0
            progress.advanced("offline", 10, {"critic/td_loss": 0.25})
        progress.stage_finished("offline", {"score": 2.0})
    lines = text.getvalue().splitlines()
    assert lines[0] == "offline: 100 to do"
    assert lines[1] == "offline: 40/100, 2.5/s, 24 s left, td loss 0.25"
    assert lines[-1] == "offline: done in 40 s, score 2"
    assert len(lines) == 4


def test_bars_show_rate_and_metrics() -> None:
    text = io.StringIO()
    console = Console(file=text, width=160, force_terminal=True)
    with RichProgress(console) as progress:
        progress.stage_started("critic_warmup", 10)
        progress.advanced("critic_warmup", 4, {"critic/td_loss": 0.5})
        progress.advanced("critic_warmup", 6, {})
        progress.note("something [odd]")
        progress.stage_finished("critic_warmup", {"score": 3.0})
    output = text.getvalue()
    assert "critic warmup" in output and "10/10" in output
    assert "score 3, td loss 0.5" in output
    assert "something [odd]" in output


def test_evaluation_before_the_first_update_is_no_error() -> None:
    console = Console(file=io.StringIO())
    LogProgress(console).advanced("offline", 0, {"score": 1.0})
    with RichProgress(console) as progress:
        progress.advanced("offline", 0, {"score": 1.0})
