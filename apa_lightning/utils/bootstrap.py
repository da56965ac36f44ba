"""Means with 95 % intervals, from bootstrap resampling of clips or of whole sources."""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

DRAWS = 2000


class Interval(NamedTuple):
    """A mean and its 95 % interval; all NaN where there is nothing to average."""

    mean: float
    low: float
    high: float


UNKNOWN = Interval(np.nan, np.nan, np.nan)


def resampled(statistic: Callable[[np.ndarray], np.ndarray], count: int, seed: int = 0, draws: int = DRAWS) -> Interval:
    """A statistic of ``count`` sources, and the 2.5th and 97.5th percentile of its values for resampled sources.

    Args:
        statistic: Function of numbers of sources (..., N) that returns (...); NaN for a draw without a value.
        count: Number of sources.
        seed: Seed of the draws.
        draws: Number of draws.
    """
    everything = np.arange(count)
    mean = float(statistic(everything))
    if count < 2:
        return Interval(mean, mean, mean)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", stats.DegenerateDataWarning
        )  # about its own interval, where a draw has no value
        found = stats.bootstrap(
            (everything,),
            lambda numbers, axis: statistic(np.moveaxis(numbers, axis, -1)),
            n_resamples=draws,
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    low, high = np.nanpercentile(found.bootstrap_distribution, [2.5, 97.5])
    return Interval(mean, float(low), float(high))


def bootstrap(values: Sequence[float] | np.ndarray, seed: int = 0, draws: int = DRAWS) -> Interval:
    """Mean of one value per clip; its interval resamples clips.

    NaN stands for a clip that could not be measured and is left out.
    """
    every = np.asarray(values, dtype=np.float64)
    known = every[~np.isnan(every)]
    return resampled(lambda numbers: known[numbers].mean(axis=-1), len(known), seed, draws) if len(known) else UNKNOWN


def bootstrap_by_source(
    values: Sequence[float] | np.ndarray, sources: Sequence[str], seed: int = 0, draws: int = DRAWS
) -> Interval:
    """Mean of one value per edit; its interval resamples whole sources, because edits of one recording are not independent.

    Args:
        values: One value per edit; NaN is left out.
        sources: For each edit, the recording that it was made from.
        seed: Seed of the draws.
        draws: Number of draws.
    """
    every, names = np.asarray(values, dtype=np.float64), np.asarray(sources)
    known = every[~np.isnan(every)]
    if not len(known):
        return UNKNOWN
    _, number = np.unique(names[~np.isnan(every)], return_inverse=True)
    sums, counts = np.bincount(number, known), np.bincount(number)
    return resampled(lambda drawn: sums[drawn].sum(axis=-1) / counts[drawn].sum(axis=-1), len(sums), seed, draws)
