"""Statistics of features as LeRobot writes them, per episode and of the whole data set."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}

FeatureStats = dict[str, np.ndarray]
"""`min, max, mean, std`, the quantiles and `count` `(1,)` of one feature."""

_MOST_IMAGES = 100


def vector_stats(values: np.ndarray) -> FeatureStats:
    """Return statistics over the steps of `[T, n]` or `[T]` numbers; shape `(n,)`, or `(1,)`."""
    values = values.reshape(len(values), -1).astype(np.float64)
    stats = {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "count": np.array([len(values)]),
    }
    return stats | {name: np.quantile(values, q, axis=0) for name, q in QUANTILES.items()}


def image_stats(images: np.ndarray) -> FeatureStats:
    """Return statistics per channel over the pixels of `[T, height, width, C]` uint8.

    Pixels are scaled to [0, 1] and the statistics have shape `(C, 1, 1)`. Long episodes are represented by
    evenly spaced images; `count` is their number.
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, _MOST_IMAGES).round().astype(int))
    pixels = images[chosen].reshape(-1, images.shape[3])
    levels = np.arange(256) / 255
    histograms = np.stack([np.bincount(channel, minlength=256) for channel in pixels.T])
    shares = histograms / len(pixels)
    mean = shares @ levels
    cumulative = np.cumsum(histograms, axis=1)
    present = histograms > 0
    stats = {
        "min": levels[present.argmax(axis=1)],
        "max": levels[255 - present[:, ::-1].argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt((shares * (levels - mean[:, None]) ** 2).sum(axis=1)),
    }
    for name, q in QUANTILES.items():
        stats[name] = levels[(cumulative >= q * len(pixels)).argmax(axis=1)]
    shaped = {name: value.reshape(-1, 1, 1) for name, value in stats.items()}
    return shaped | {"count": np.array([len(chosen)])}


def merged(first: Mapping[str, FeatureStats], second: Mapping[str, FeatureStats]) -> dict[str, FeatureStats]:
    """Return the statistics of two disjoint parts of a data set together.

    Minimum, maximum, mean and standard deviation are exact. Quantiles are means weighted by the counts, the
    approximation that LeRobot itself makes when it joins episodes.
    """
    return {name: _merged(first[name], second[name]) for name in first}


def _merged(a: FeatureStats, b: FeatureStats) -> FeatureStats:
    count = a["count"] + b["count"]
    share = float(b["count"][0] / count[0])
    mean = a["mean"] + share * (b["mean"] - a["mean"])
    variance = (1 - share) * (a["std"] ** 2 + (a["mean"] - mean) ** 2) + share * (
        b["std"] ** 2 + (b["mean"] - mean) ** 2
    )
    quantiles = {name: a[name] + share * (b[name] - a[name]) for name in QUANTILES}
    return {
        "min": np.minimum(a["min"], b["min"]),
        "max": np.maximum(a["max"], b["max"]),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": count,
        **quantiles,
    }
