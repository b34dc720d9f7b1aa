"""row g of a run -> (dataset, window): the order of training, a pure function of the seed.

Nothing is stored and nothing is shuffled in memory: any row of any epoch is computed from its number, so a run restarts at
batch n by asking for batch n, and hosts that never talk agree on who reads what. No library's random stream is used: the order
is the same on every machine, for ever.
"""

import functools
import math

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 14
"""Rows after which a mixture has kept its weights, to a visit; to a few of them, where it has datasets of less than one in so many."""

_ROUNDS = 3
_HALVINGS = 32  # in the first 2**46 rows nothing is rounded twice, so any weight will do

Integers = int | np.integer | NDArray


def draw(
    rows: NDArray[np.int64], lengths: tuple[int, ...], weights: tuple[float, ...], seed: int, together: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(dataset, window) of each row: datasets in proportion to `weights`, windows of each without repetition within its epoch.

    Args:
      lengths: windows in each dataset.
      weights: sum to 1, each above 0.
      together: so many rows on end hold consecutive windows of one dataset, that one visit to a record can serve; a power of two.
        An epoch then leaves out up to together - 1 windows, others each time.
    """
    datasets, counts, chosen = (np.zeros(len(rows), np.int64) for _ in range(3))
    for block in np.unique(rows // BLOCK):
        here = rows // BLOCK == block
        dataset, count = _block(int(block), weights, seed, together)
        datasets[here], counts[here] = dataset[rows[here] % BLOCK], count[rows[here] % BLOCK]
    for i, length in enumerate(lengths):
        mine = datasets == i
        size = together if length >= together else 1
        epoch, position = np.divmod(counts[mine], length // size * size)
        key = mix(epoch, mix(i, seed))
        group = permute(position // size, length // size, key)
        offset = mix(key, 1) % np.uint64(length) if size > 1 else np.uint64(0)
        chosen[mine] = (group * size + position % size + np.asarray(offset).astype(np.int64)) % length
    return datasets, chosen


@functools.lru_cache(maxsize=16)
def _block(block: int, weights: tuple[float, ...], seed: int, together: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each row in a block: its dataset, and how many rows of that dataset came before it in the run."""
    before, held = _share(block, weights, BLOCK // together)
    groups = np.repeat(np.arange(len(weights)), held)
    datasets = np.repeat(groups[permute(np.arange(len(groups)), len(groups), mix(block, ~seed))], together)
    counts = np.zeros(BLOCK, np.int64)
    for i, first in enumerate(before):
        counts[datasets == i] = first * together + np.arange(held[i] * together)
    return datasets, counts


def _share(block: int, weights: tuple[float, ...], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of `size` groups a block: how many of each dataset came before this one, and how many it holds.

    Shares are rounded where as many blocks begin, a power of two, as hold a group of every dataset; such a span is halved, and its
    halves, down to the block. (Rounded at every block, a dataset of less than a group a block could lose one that it had.)
    """
    halvings = 0
    while min(weights) * size * 2**halvings < 1 and halvings < _HALVINGS:
        halvings += 1
    span, edges = block >> halvings, np.array([0.0, *np.cumsum(weights)[:-1], 1.0])
    before, after = (np.rint(edges * (n * size * 2**halvings)).astype(np.int64) for n in (span, span + 1))
    held = after - before
    for halving in reversed(range(halvings)):
        left = held // 2
        if block >> halving & 1:
            before, held = before + left, held - left
        else:
            held = left
    return np.diff(before), np.diff(held)


def permute(position: NDArray[np.int64], length: int, key: Integers) -> NDArray[np.int64]:
    """A bijection of 0 .. length-1, another one for each key: a Feistel network over a grid just large enough.

    Position = (row, column) of the grid; each round adds a hash of one to the other, which can be undone, so no two positions
    meet. The few that land past `length` walk on until they do not.
    """
    rows = math.isqrt(length - 1) + 1
    columns = -(-length // rows)
    value = position.astype(np.uint64)
    key = np.broadcast_to(np.asarray(key, np.uint64), value.shape)
    outside = np.ones(value.shape, bool)
    while outside.any():
        row, column = np.divmod(value[outside], np.uint64(columns))
        for step in range(_ROUNDS):
            row = (row + mix(column, key[outside] + np.uint64(2 * step)) % np.uint64(rows)) % np.uint64(rows)
            column = (column + mix(row, key[outside] + np.uint64(2 * step + 1)) % np.uint64(columns)) % np.uint64(columns)
        value[outside] = row * np.uint64(columns) + column
        outside = value >= np.uint64(length)
    return value.astype(np.int64)


def mix(value: Integers, key: Integers) -> np.uint64 | NDArray[np.uint64]:
    """A 64-bit hash of (value, key): the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    with np.errstate(over="ignore"):
        bits = np.asarray(value).astype(np.uint64) + np.asarray(key).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ bits >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ bits >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        return bits ^ bits >> np.uint64(31)
