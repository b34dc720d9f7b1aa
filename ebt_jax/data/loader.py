"""Batch n = f(seed, n): Grain's threads ask for batches by number and hand them over in order.

    row of the run  n B + i  ->  order.draw  ->  (dataset, window)  ->  batches.gather  ->  normalise

A host of P holds rows n B + p B/P and the B/P - 1 that follow, so the batches of all hosts, one below the other, are the batch of
one host.
"""

import functools
import sys
from collections.abc import Iterator, Sequence

import grain
import jax
import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt64

from ebt_jax.data import jobs
from ebt_jax.data.mixture import Mixture
from ebt_jax.data.order import draw, mix, permute
from ebt_jax.types import Batch


def make_loader(
    mixture: Mixture,
    split: str,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int | None = None,
    prefetch: int | None = None,
) -> Iterator[Batch]:
    """Batches of numpy arrays, normalised; this host's rows of the global `batch_size`, from batch `start_step` on.

    "train" never ends: each dataset's windows come without repetition within an epoch, another order each time. "validation" is
    one pass over all windows in a fixed order that depends on `seed` alone; the last batch is filled up with rows whose
    action_mask is all False. Raises ValueError where nothing is held out.

    Memory holds at most `prefetch` batches (default: two more than `num_threads`, which defaults to the cores of this process, at most 16).
    Errors of reading are raised by `next`.
    """
    if batch_size < 1 or not 0 <= process_index < process_count or batch_size % process_count:
        raise ValueError(
            f"batch_size must be a positive multiple of process_count, got {batch_size} for process {process_index} of {process_count}."
        )
    threads = min(jobs.cores(), 16) if num_threads is None else num_threads
    source = _Batches(mixture, split, batch_size, seed, start_step, process_index, process_count)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 2 if prefetch is None else prefetch)
    return iter(grain.MapDataset.source(source).to_iter_dataset(options))


def whose(mixture: Mixture, batch_size: int, seed: int, process_index: int = 0, process_count: int = 1) -> Iterator[Int[np.ndarray, " b"]]:
    """Beside the batches that `make_loader` makes of "validation" with the same arguments: the dataset that each row is of, by number."""
    source = _Batches(mixture, "validation", batch_size, seed, 0, process_index, process_count)
    return (source.held_out(index)[0] for index in range(len(source)))


_KEYS = 0x6B657973
"""Mixed with the seed for the choices of a sample, so that they do not depend on the order of samples."""


class _Batches:
    """A sequence of batches that can be read at any place."""

    def __init__(self, mixture: Mixture, split: str, batch_size: int, seed: int, start: int, process_index: int, process_count: int):
        self._mixture, self._splits, self._seed, self._start = mixture, mixture.split(split), seed, start
        self._lengths = tuple(len(part) for part in self._splits)
        self._endless = split == "train"
        self._batch_size, self._local = batch_size, batch_size // process_count
        self._offset = process_index * self._local
        self._together = mixture.settings.windows_per_visit

    def __len__(self) -> int:
        return sys.maxsize if self._endless else max(0, -(-sum(self._lengths) // self._batch_size) - self._start)

    def __getitem__(self, index: int) -> Batch:
        if self._endless:
            rows = self._rows(index)
            weights = tuple(dataset.weight for dataset in self._mixture.datasets)
            which, windows = draw(rows, self._lengths, weights, self._seed, self._together)
            return self._gather(which, windows, np.asarray(mix(rows, mix(_KEYS, self._seed))))
        which, windows, real = self.held_out(index)
        batch = self._gather(which, windows)
        return batch._replace(action_mask=batch.action_mask & real[:, None, None])

    def held_out(self, index: int) -> tuple[Int[np.ndarray, " b"], Int[np.ndarray, " b"], Bool[np.ndarray, " b"]]:
        """(dataset, window of it) of each row of a validation batch; False for rows that fill it up."""
        rows, total, ends = self._rows(index), sum(self._lengths), np.cumsum(self._lengths)
        number = permute(np.minimum(rows, total - 1), total, mix(self._seed, total))
        which = np.searchsorted(ends, number, side="right")
        return which, number - ends[which] + np.asarray(self._lengths)[which], rows < total

    def _rows(self, index: int) -> Int[np.ndarray, " b"]:
        """This host's rows of a batch, by their numbers in the run."""
        return (self._start + index) * self._batch_size + self._offset + np.arange(self._local)

    def _gather(self, which: Int[np.ndarray, " b"], windows: Int[np.ndarray, " b"], keys: UInt64[np.ndarray, " b"] | None = None) -> Batch:
        """The windows of each dataset, normalised by its own statistics, in the order asked for."""
        mixture, parts, places = self._mixture, [], []
        for i in np.unique(which):
            mine, part = which == i, self._splits[i]
            numbers = windows[mine] if keys is None or self._together == 1 else part.scatter(windows[mine], self._seed)
            parts.append(mixture.batch(mixture.datasets[i], part, numbers, None if keys is None else keys[mine]))
            places.append(mine)
        return parts[0] if len(parts) == 1 else jax.tree.map(functools.partial(_join, places), *parts)


def _join(places: Sequence[Bool[np.ndarray, " b"]], *leaves: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "b ..."]:
    """The rows of every leaf in their places: where a mask is True."""
    whole = np.empty((len(places[0]), *leaves[0].shape[1:]), leaves[0].dtype)
    for mine, leaf in zip(places, leaves, strict=True):
        whole[mine] = leaf
    return whole
