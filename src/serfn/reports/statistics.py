"""Intervals for means, rates and differences, so that a result is never a bare number.

Which one where: rates (values that are only 0 or 1) use Wilson's score interval, which stays honest at 0 of
n; other means use Student's t; other statistics (medians, trimmed means) use the bootstrap. Comparisons of
training methods over seeds follow rliable (Agarwal et al. 2021, arXiv 2108.13264): the interquartile mean
over runs with a bootstrap stratified by task, and the probability of improvement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from serfn.core.results import EvaluationResult


@dataclass(frozen=True)
class Interval:
    """An estimate with the interval that covers the truth with the stated confidence."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class SummaryRow:
    """One line of a results table.

    Args:
        name: Name of the quantity, such as `score` or `drop`.
        interval: Its mean over the episodes with a 95% interval.
        rate: Whether every value is 0 or 1, so that the mean is a fraction of episodes.
    """

    name: str
    interval: Interval
    rate: bool


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of a success rate (Wilson 1927; Brown, Cai and DasGupta 2001, equation 4).

    >>> rounded = wilson_interval(0, 50)
    >>> round(rounded.low, 3), round(rounded.high, 3)
    (0.0, 0.071)

    Raises:
        ValueError: `n` is below 1 or `successes` outside [0, n].
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"got {successes} successes of {n}; need n >= 1 and 0 <= successes <= n")
    z = _normal_quantile(confidence)
    rate = successes / n
    scale = 1 + z**2 / n
    center = (rate + z**2 / (2 * n)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    # At 0 and n the limits are exactly 0 and 1; rounding must not leave the rate outside its interval.
    low = 0.0 if successes == 0 else center - half
    high = 1.0 if successes == n else center + half
    return Interval(rate, low, high, n)


def mean_t_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean; a single value has the infinite interval.

    Raises:
        ValueError: `values` is empty.
    """
    sample = _sample(values)
    mean = float(sample.mean())
    if sample.size == 1:
        return Interval(mean, -math.inf, math.inf, 1)
    error = float(sample.std(ddof=1)) / math.sqrt(sample.size)
    half = t_quantile(0.5 + confidence / 2, sample.size - 1) * error
    return Interval(mean, mean - half, mean + half, sample.size)


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    statistic: Callable[..., np.ndarray] = np.mean,
    *,
    rng: np.random.Generator,
    n_boot: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of any statistic (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: Sample `[n]`.
        statistic: Reduces an array along `axis=-1`, such as `np.mean` or `np.median`.
        rng: Source of the resamples.
        n_boot: Number of resamples.
        confidence: Coverage of the interval.

    Raises:
        ValueError: `values` is empty.
    """
    sample = _sample(values)
    draws = statistic(sample[rng.integers(sample.size, size=(n_boot, sample.size))], axis=-1)
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(statistic(sample, axis=-1)), float(low), float(high), sample.size)


def difference_interval(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, confidence: float = 0.95
) -> Interval:
    """Interval of `mean(a) - mean(b)` for independent samples: an improvement is real if it excludes 0.

    Rates use Newcombe's hybrid score interval (1998, method 10); other values use Welch's t with the degrees
    of freedom rounded down, which errs towards "not shown". `n` is the smaller sample's size.

    Raises:
        ValueError: A sample is empty.
    """
    first, second = _sample(a), _sample(b)
    difference = float(first.mean() - second.mean())
    n = min(first.size, second.size)
    if is_rate(first) and is_rate(second):
        p, q = (wilson_interval(int(s.sum()), s.size, confidence) for s in (first, second))
        low = difference - math.hypot(p.mean - p.low, q.high - q.mean)
        high = difference + math.hypot(p.high - p.mean, q.mean - q.low)
        return Interval(difference, low, high, n)
    if n == 1:
        return Interval(difference, -math.inf, math.inf, n)
    errors = np.array([first.var(ddof=1) / first.size, second.var(ddof=1) / second.size])
    if errors.sum() == 0:
        return Interval(difference, difference, difference, n)
    freedom = errors.sum() ** 2 / (errors**2 / [first.size - 1, second.size - 1]).sum()
    half = t_quantile(0.5 + confidence / 2, max(1, int(freedom))) * math.sqrt(errors.sum())
    return Interval(difference, difference - half, difference + half, n)


def interquartile_mean(values: Sequence[float] | np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of the middle half: a quarter of the values, rounded down, is left out at either end.

    Less sensitive to a single odd run than the mean, and more efficient than the median (rliable, section
    4.3).

    >>> float(interquartile_mean([0.0, 1.0, 2.0, 3.0, 100.0]))
    2.0
    """
    ordered = np.sort(np.asarray(values, np.float64), axis=axis)
    count = ordered.shape[axis]
    cut = count // 4
    return np.take(ordered, np.arange(cut, count - cut), axis=axis).mean(axis=axis)


def stratified_bootstrap_interval(
    strata: Sequence[Sequence[float] | np.ndarray],
    statistic: Callable[..., np.ndarray] = interquartile_mean,
    *,
    rng: np.random.Generator,
    n_boot: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval of a statistic over all runs, with runs resampled within each task (rliable, A.3).

    Args:
        strata: Scores of the runs of each task; tasks may have different numbers of runs.
        statistic: Reduces an array along `axis=-1`.
        rng: Source of the resamples.
        n_boot: Number of resamples.
        confidence: Coverage of the interval.

    Returns:
        The statistic over all runs of all tasks; `n` counts the runs. A task with a single run says nothing
        about the spread between runs: the interval is infinite.

    Raises:
        ValueError: There is no task, or one without runs.
    """
    samples = _strata(strata)
    total = sum(sample.size for sample in samples)
    estimate = float(statistic(np.concatenate(samples), axis=-1))
    if min(sample.size for sample in samples) == 1:
        return Interval(estimate, -math.inf, math.inf, total)
    draws = statistic(
        np.concatenate([sample[_resamples(sample.size, n_boot, rng)] for sample in samples], axis=-1), axis=-1
    )
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, float(low), float(high), total)


def probability_of_improvement(
    a: Sequence[Sequence[float] | np.ndarray],
    b: Sequence[Sequence[float] | np.ndarray],
    *,
    rng: np.random.Generator,
    n_boot: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Chance that a run of `a` beats one of `b` on the same task, averaged over tasks (rliable, section 4.3).

    Per task it is the Mann-Whitney statistic ``U / (N M)``, in which a tie counts half; the interval is the
    percentile bootstrap, stratified by task.

    Args:
        a: Scores of the runs of each task.
        b: The same of the other method, in the same order of tasks.
        rng: Source of the resamples.
        n_boot: Number of resamples.
        confidence: Coverage of the interval.

    Returns:
        The probability; `n` is the number of runs of the method that has fewer. With a single run of a task
        the interval is all of [0, 1].

    Raises:
        ValueError: The numbers of tasks differ, or a task has no runs.
    """
    first, second = _strata(a), _strata(b)
    if len(first) != len(second):
        raise ValueError(f"got {len(first)} and {len(second)} tasks; compare on the same tasks")
    wins = [
        (x[:, None] > y).astype(np.float64) + 0.5 * (x[:, None] == y)
        for x, y in zip(first, second, strict=True)
    ]
    estimate = float(np.mean([win.mean() for win in wins]))
    n = min(sum(sample.size for sample in samples) for samples in (first, second))
    if min(sample.size for sample in (*first, *second)) == 1:
        return Interval(estimate, 0.0, 1.0, n)
    draws = np.zeros(n_boot)
    for win in wins:
        rows, columns = (_resamples(size, n_boot, rng) for size in win.shape)
        draws += win[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2)) / len(wins)
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, float(low), float(high), n)


def paired_interval(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, confidence: float = 0.95
) -> Interval:
    """Student's t interval of the mean of `a - b` for values that belong together, such as equal seeds.

    What both share (demonstrations, evaluation seeds, initial weights) cancels in each pair; `n` counts the
    pairs.

    Raises:
        ValueError: The lengths differ, or there are no pairs.
    """
    first, second = _sample(a), _sample(b)
    if first.size != second.size:
        raise ValueError(f"got {first.size} and {second.size} values; a paired comparison needs equal seeds")
    return mean_t_interval(first - second, confidence)


def summarize(result: EvaluationResult, score_name: str | None = None) -> list[SummaryRow]:
    """Table of an evaluation: score, return, success if known, the task's metrics, episode seconds.

    Args:
        result: Outcome of the episodes.
        score_name: How the score is called; None looks at the result itself, see `name_score`.
    """
    name = name_score([result]) if score_name is None else score_name
    columns: dict[str, Sequence[float]] = {name: result.scores}
    known = [float(success) for success in result.successes if success is not None]
    if known:
        columns["success"] = known
    columns.update(
        {metric: values for metric, values in result.metrics.items() if metric not in (name, "score")}
    )
    columns["return"] = result.returns
    columns["episode_seconds"] = [length / result.control_hz for length in result.lengths]
    return [summary_row(column, values) for column, values in columns.items()]


def name_score(results: Sequence[EvaluationResult]) -> str:
    """Return what the score of these evaluations is: a metric of the task, success, return, or `score`."""
    informative = any(any(result.scores) for result in results)
    for name in results[0].metrics if informative else ():
        if name != "score" and all(result.metrics.get(name) == result.scores for result in results):
            return name
    if all(result.scores == result.successes and "score" not in result.metrics for result in results):
        return "success"
    return "return" if all(result.scores == result.returns for result in results) else "score"


def summary_row(name: str, values: Sequence[float]) -> SummaryRow:
    """Summarise one column: as a rate where all values are 0 or 1, unless it is a sum or a duration."""
    sample = _sample(values)
    rate = is_rate(sample) and name not in ("score", "return", "episode_seconds")
    interval = wilson_interval(int(sample.sum()), sample.size) if rate else mean_t_interval(sample)
    return SummaryRow(name, interval, rate)


def is_rate(values: Sequence[float] | np.ndarray) -> bool:
    """Return whether all values are 0 or 1."""
    return bool(np.isin(np.asarray(values), (0.0, 1.0)).all())


def t_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t.

    >>> round(t_quantile(0.975, 9), 4)
    2.2622

    Raises:
        ValueError: `probability` outside (0, 1) or `freedom` below 1.
    """
    if not 0 < probability < 1 or freedom < 1:
        raise ValueError(
            f"t_quantile needs probability in (0, 1) and freedom >= 1, got {probability}, {freedom}"
        )
    return float(stdtrit(freedom, probability))


def _normal_quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must lie in (0, 1)")
    return float(ndtri(0.5 + confidence / 2))


def _sample(values: Sequence[float] | np.ndarray) -> np.ndarray:
    sample = np.asarray(values, dtype=np.float64).reshape(-1)
    if sample.size == 0:
        raise ValueError("got no values; an interval needs at least one")
    return sample


def _strata(values: Sequence[Sequence[float] | np.ndarray]) -> list[np.ndarray]:
    if len(values) == 0:
        raise ValueError("got no tasks; compare on at least one")
    return [_sample(sample) for sample in values]


def _resamples(size: int, n_boot: int, rng: np.random.Generator) -> np.ndarray:
    """Indices `[n_boot, size]` drawn with replacement."""
    return rng.integers(size, size=(n_boot, size))
