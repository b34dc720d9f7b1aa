"""Statistics of columns that never fit in memory: exact, from parts whose summaries add up.

Quantiles are found by radix selection. A float32's 32 bits, read as an integer, keep the order of the numbers, so counting the
first 16 bits of every value says in which of 65,536 bins a quantile lies, and counting the last 16 bits of that bin's values says
which value it is: two passes, each a count, and counts of parts add up. Mean and spread add up after Chan, Golub and LeVeque (1979).
So a part is a job of each pass, and any number of processes gives the same numbers: they are added up in the order of the parts.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt16
from numpy.typing import NDArray

from ebt_jax.data import jobs
from ebt_jax.normalize import VectorStatistics

Part = Callable[[], Iterable[NDArray]]
"""Some rows, [n d] float32 block by block; at least one. For processes it must be picklable."""

QUANTILES = (0.01, 0.99)
_BINS = 1 << 16


class Summary(NamedTuple):
    """What is known of some rows [n d]: `merge` of two summaries is the summary of both.

    Attributes:
      count: n.
      mean, spread: per dimension; spread is the sum of squared distances from the mean.
      low, high: extremes.
      bins: how many values have each pattern of first 16 bits, ordered as the numbers are.
    """

    count: int
    mean: Float[np.ndarray, " d"]
    spread: Float[np.ndarray, " d"]
    low: Float[np.ndarray, " d"]
    high: Float[np.ndarray, " d"]
    bins: Int[np.ndarray, "d bins"]


def summarize(values: NDArray) -> Summary:
    """The summary of rows [n d] of float32, n at least 1."""
    first, _ = _halves(values)
    exact = values.astype(np.float64)
    mean = exact.mean(0)
    bins = np.stack([np.bincount(column, minlength=_BINS) for column in first.T]) if values.shape[1] else np.zeros((0, _BINS), np.int64)
    return Summary(len(values), mean, np.square(exact - mean).sum(0), exact.min(0), exact.max(0), bins)


def merge(a: Summary, b: Summary) -> Summary:
    """The summary of the rows of both."""
    count, apart = a.count + b.count, b.mean - a.mean
    return Summary(
        count,
        a.mean + apart * (b.count / count),
        a.spread + b.spread + np.square(apart) * (a.count * b.count / count),
        np.minimum(a.low, b.low),
        np.maximum(a.high, b.high),
        a.bins + b.bins,
    )


def statistics(parts: Sequence[Part], size: int, runner: jobs.Runner = jobs.here) -> VectorStatistics:
    """Of the rows [n `size`] of all parts, each read twice by `runner`. Equal to `VectorStatistics.of` of them together.

    Raises ValueError for no row, or a value that is not finite.
    """
    summaries = list(runner(_summary, parts))
    if not summaries:
        raise ValueError("statistics must be of at least one row, got none.")
    total = functools.reduce(merge, summaries)
    positions = [quantile * (total.count - 1) for quantile in QUANTILES]
    ranks = sorted({rank for position in positions for rank in (int(position), min(int(position) + 1, total.count - 1))})
    ordered = _select(total, parts, np.array(ranks, np.int64), size, runner)
    quantiles = []
    for position in positions:
        below = ordered[ranks.index(int(position))]
        above = ordered[ranks.index(min(int(position) + 1, total.count - 1))]
        quantiles.append(below + (above - below) * (position - int(position)))
    return VectorStatistics(total.mean, np.sqrt(total.spread / total.count), total.low, total.high, *quantiles)


def _summary(part: Part) -> Summary:
    """The summary of a part's rows."""
    total = None
    for values in part():
        if not np.isfinite(values).all():
            raise ValueError(f"values must be finite, got NaN or infinity among {len(values)} rows. Filter these episodes out.")
        summary = summarize(values)
        total = summary if total is None else merge(total, summary)
    if total is None:
        raise ValueError("a part must hold at least one row, got none.")
    return total


def _select(
    total: Summary, parts: Sequence[Part], ranks: Int[np.ndarray, " r"], size: int, runner: jobs.Runner
) -> Float[np.ndarray, "r {size}"]:
    """The ranks-th smallest values of each dimension, counted from 0."""
    ends = np.cumsum(total.bins, axis=1)
    bins = np.stack([np.searchsorted(column, ranks, side="right") for column in ends], 1) if size else np.zeros((len(ranks), 0), np.int64)
    counts = sum(runner(_count, [(part, bins) for part in parts]), np.zeros((len(ranks), size, _BINS), np.int64))
    found = np.zeros((len(ranks), size))
    for column in range(size):
        before = ranks - np.where(bins[:, column] > 0, ends[column, bins[:, column] - 1], 0)
        for rank in range(len(ranks)):
            low = np.searchsorted(np.cumsum(counts[rank, column]), before[rank], side="right")
            found[rank, column] = _number(int(bins[rank, column]), int(low))
    return found


def _count(task: tuple[Part, Int[np.ndarray, "r d"]]) -> Int[np.ndarray, "r d bins"]:
    """How many of a part's values in bin [r, d] of dimension d have each pattern of last 16 bits."""
    part, bins = task
    counts = np.zeros((*bins.shape, _BINS), np.int64)
    for values in part():
        first, last = _halves(values)
        for rank, column in np.ndindex(*bins.shape):
            counts[rank, column] += np.bincount(last[first[:, column] == bins[rank, column], column], minlength=_BINS)
    return counts


def _halves(values: NDArray) -> tuple[UInt16[np.ndarray, "n d"], UInt16[np.ndarray, "n d"]]:
    """First and last 16 bits of float32 numbers as an integer that keeps their order: all bits flipped below 0, else the sign."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    ordered = np.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> 16).astype(np.uint16), (ordered & 0xFFFF).astype(np.uint16)


def _number(first: int, last: int) -> float:
    ordered = first << 16 | last
    bits = ordered & 0x7FFFFFFF if ordered >> 31 else ~ordered & 0xFFFFFFFF
    return float(np.uint32(bits).view(np.float32))
