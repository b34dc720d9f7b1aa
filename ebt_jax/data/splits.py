"""Which episodes train and which are held out, and where their windows lie.

An episode is held out or not by a hash of what it contains, so the choice does not depend on the order of files, is the same on
every host, and never parts two copies of one episode.
"""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from ebt_jax.data import jobs
from ebt_jax.data import statistics as merged
from ebt_jax.data.index import Index, keep
from ebt_jax.data.order import mix, permute
from ebt_jax.data.settings import DataSettings
from ebt_jax.normalize import Statistics, VectorStatistics

OWN_VALIDATION = ("val", "validation", "test")
"""Names under which datasets keep episodes for validation, the preferred first."""


RUN = np.dtype([("episode", "<i4"), ("first", "<i4"), ("length", "<i4")])
"""Consecutive steps of one episode of a split."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Some episodes of an index, and which of their steps are windows (None: all), numbered through."""

    index: Index
    episodes: NDArray
    runs: NDArray | None = None

    @functools.cached_property
    def _runs(self) -> NDArray:
        if self.runs is not None:
            return self.runs
        whole = np.zeros(len(self.episodes), RUN)
        whole["episode"], whole["length"] = np.arange(len(whole)), self.episodes["length"]
        return whole

    @functools.cached_property
    def _ends(self) -> Int[np.ndarray, " n"]:
        return np.cumsum(self._runs["length"], dtype=np.int64)

    def __len__(self) -> int:
        """Number of windows."""
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def digest(self) -> str:
        """Of which episodes these are, by place and content, and which of their steps are windows."""
        return hashlib.sha256(self.episodes.tobytes() + (b"" if self.runs is None else self.runs.tobytes())).hexdigest()

    def locate(self, windows: Int[np.ndarray, " b"]) -> tuple[NDArray, Int[np.ndarray, " b"]]:
        """(episode [b] of `EPISODE`, step in it [b]) of each window."""
        number = np.searchsorted(self._ends, windows, side="right")
        run = self._runs[number]
        return self.episodes[run["episode"]], windows - self._ends[number] + run["length"] + run["first"]

    def places(self, windows: Int[np.ndarray, " b"]) -> Int[np.ndarray, " b"]:
        """The place in `episodes` of each window's episode."""
        return self._runs["episode"][np.searchsorted(self._ends, windows, side="right")]

    def scatter(self, windows: Int[np.ndarray, " b"], seed: int) -> Int[np.ndarray, " b"]:
        """Another numbering of the windows in which neighbours lie anywhere in one run: the same windows, each once."""
        number = np.searchsorted(self._ends, windows, side="right")
        found = windows.copy()
        for run in np.unique(number):
            mine, length = number == run, int(self._runs["length"][run])
            start = int(self._ends[run]) - length
            found[mine] = start + permute(windows[mine] - start, length, mix(int(run), seed))
        return found

    def parts(self, column: str, size: int = 1 << 21) -> list["Rows"]:
        """The rows of a column at every window, in order, about `size` in each part."""
        values, runs = self.index.columns[column], self._runs
        starts, file = self.episodes["start"][runs["episode"]] + runs["first"], os.fspath(self.index.cache / column)
        return [Rows(file, values.dtype.str, values.shape, starts[part], runs["length"][part]) for part in _together(runs["length"], size)]


class Rows(NamedTuple):
    """Rows of a column's file, `lengths` from each of `starts`: any process can read them."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    starts: Int[np.ndarray, " n"]
    lengths: Int[np.ndarray, " n"]

    def __call__(self, size: int = 1 << 18) -> Iterator[NDArray]:
        """The rows in order, about `size` at a time."""
        values = np.asarray(np.memmap(self.file, self.dtype, "r", shape=self.shape))
        for part in _together(self.lengths, size):
            spans = zip(self.starts[part].tolist(), self.lengths[part].tolist(), strict=True)
            yield np.concatenate([values[start : start + length] for start, length in spans])


def _together(lengths: Int[np.ndarray, " n"], size: int) -> Iterator[slice]:
    """All of `lengths` in their order, as groups that sum to about `size` and never to 0."""
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    edges = np.searchsorted(ends, np.arange(size, total + size, size), side="left") + 1
    for first, last in zip([0, *edges[:-1]], edges, strict=True):
        if lengths[first:last].any():
            yield slice(first, last)


def train_split(index: Index, name: str, settings: DataSettings) -> Split:
    """The episodes that are not held out. Raises ValueError if none is left."""
    split = Split(index, index.episodes[~held_out(index, name, settings)])
    if len(split) == 0:
        raise ValueError(
            f"train split of {name!r} must hold at least one episode, got none of {len(index.episodes)} with {rule(settings)}. "
            "Change validation_fraction or validation_folds."
        )
    return split


def validation_split(index: Index, name: str, settings: DataSettings) -> Split:
    """The held-out episodes of a training index; of a small one there may be none."""
    return Split(index, index.episodes[held_out(index, name, settings)])


def own_validation_split(index: Index, train: Index, name: str) -> Split:
    """The validation split that the dataset brings along. Raises ValueError if it shares episodes with the training split."""
    identity = ["checksum", "size"]  # a checksum alone would meet itself by chance among 100,000 episodes
    shared = np.intersect1d(index.episodes[identity], train.episodes[identity]).size
    if shared:
        raise ValueError(
            f"validation split of {name!r} must share no episode with its training split, got {shared} in both. "
            "Hold some of the training episodes out: set validation_fraction above 0."
        )
    return Split(index, index.episodes)


def held_out(index: Index, name: str, settings: DataSettings) -> Bool[np.ndarray, " n"]:
    """True for each episode of `index` that validates; `name` is the dataset's as it was written, whatever its folder is called.

    With folds, the distinct episodes are ranked by their hash and every `validation_folds`-th belongs to the fold: folds are of
    equal size, disjoint, and together all episodes. With a fraction, those are held out whose hash lies below it: adding
    episodes to the dataset moves none from one side to the other.
    """
    distinct, which = np.unique(index.episodes["checksum"], return_inverse=True)
    text = (f"{settings.seed}/{name}/{checksum}" for checksum in distinct)
    hashes = np.array([int.from_bytes(hashlib.sha256(t.encode()).digest()[:8]) for t in text], np.uint64)
    if settings.validation_folds:
        rank = np.argsort(np.argsort(hashes))
        return (rank % settings.validation_folds == settings.validation_fold)[which]
    return (hashes < np.float64(settings.validation_fraction) * 2.0**64)[which]


def rule(settings: DataSettings) -> str:
    """What `held_out` goes by, for messages."""
    return f"{settings.validation_folds} folds" if settings.validation_folds else f"validation_fraction {settings.validation_fraction}"


def statistics(split: Split, processes: int = -1) -> Statistics:
    """Statistics of a split's actions and proprio at every window, robot units; kept beside its index.

    `processes` as `jobs.choose` takes it; the numbers do not depend on it.
    """
    runs = b"" if split.runs is None else split.runs.tobytes()
    key = hashlib.sha256(split.episodes["start"].tobytes() + runs).hexdigest()[:16]
    path = split.index.cache / f"statistics-{key}.json"
    if path.exists():
        return Statistics.from_json(path.read_text())
    found = Statistics(_of(split, "action", processes), _of(split, "proprio", processes), len(split), len(split.episodes))
    keep(path, found.to_json())
    return found


def _of(split: Split, column: str, processes: int) -> VectorStatistics:
    if column not in split.index.columns:
        return VectorStatistics(*(np.zeros(0) for _ in dataclasses.fields(VectorStatistics)))
    values, parts = split.index.columns[column], split.parts(column)
    runner = jobs.choose(len(split) * values.shape[1] * values.itemsize, len(parts), processes)
    return merged.statistics(parts, values.shape[1], runner)
