"""How chunks become actions: one after the other, averaged where they overlap, or each grown out of the one before.

    receding   execute a[0:n], ask again
    ensemble   at each of the next n steps, the mean of every chunk that covers it, weighted by exp(-decay age) from the oldest on
               (temporal ensembling of ACT, Zhao et al. 2023, arXiv 2304.13705, which asks at every step: n = 1)
    realtime   execute a[0:n]; the next chunk begins its descent where this one, shifted by n, left off, and its first rows are held: the
               robot executes those while the policy thinks (the setting of real-time chunking, Black et al. 2025, arXiv 2506.07339)

All in robot units. Imports numpy alone, for robots.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

KINDS = ("receding", "ensemble", "realtime")


class WarmStart(NamedTuple):
    """Where a descent begins when the robot is already moving, robot units.

    Attributes:
      actions: the chunk that is being executed, shifted so that row 0 is now; NaN where it says nothing, and noise is drawn.
      committed: leading rows that will be executed whatever the answer: they are held, and come back as they are.
    """

    actions: Float[np.ndarray, "b h a"]
    committed: Int[np.ndarray, " b"]


@dataclasses.dataclass(frozen=True)
class Execution:
    """Settings.

    Attributes:
      horizon: n, actions executed between two questions.
      decay: of an ensemble's weights; 0 is the plain mean. ACT's is .01.
      committed: of "realtime", rows held: the steps that pass while the policy thinks.
    """

    kind: str = "receding"
    horizon: int = 1
    decay: float = 0.01
    committed: int = 0

    def __post_init__(self) -> None:
        for name, holds, rule in (
            ("kind", self.kind in KINDS, f"be one of {KINDS}"),
            ("horizon", self.horizon >= 1, "be at least 1"),
            ("decay", self.decay >= 0, "be at least 0"),
            ("committed", 0 <= self.committed <= self.horizon, f"lie in [0, execution.horizon = {self.horizon}]"),
        ):
            if not holds:
                raise ValueError(f"execution.{name} must {rule}, got {getattr(self, name)}.")
        if self.committed and self.kind != "realtime":
            raise ValueError(f"execution.committed must be 0 unless execution.kind is 'realtime', got {self.committed} for {self.kind!r}.")


class Chunks:
    """The chunks of one episode that still have something to say."""

    def __init__(self, settings: Execution) -> None:
        self.settings = settings
        self._chunks: list[Float[np.ndarray, "h a"]] = []

    def next(self, chunk: Float[np.ndarray, "h a"]) -> Float[np.ndarray, "n a"]:
        """The n actions to execute, given the policy's answer to the newest observation; time then stands n steps later.

        Raises ValueError where the chunk is shorter than n, or than n and the committed rows after it.
        """
        n = self.settings.horizon
        needed = n + self.settings.committed
        if len(chunk) < needed:
            raise ValueError(f"chunk must have at least {needed} rows (execution.horizon and committed), got {len(chunk)}.")
        self._chunks.append(np.asarray(chunk))
        actions = ensemble(self._chunks, n, self.settings.decay) if self.settings.kind == "ensemble" else chunk[:n]
        self._chunks = [old[n:] for old in self._chunks if len(old) > n]
        if self.settings.kind != "ensemble":
            self._chunks = self._chunks[-1:]
        return actions

    def warm_start(self, shape: tuple[int, int]) -> tuple[Float[np.ndarray, "h a"], int]:
        """A row of `WarmStart` for a chunk of `shape`: all NaN and 0 before the first chunk, and unless execution is "realtime"."""
        start = np.full(shape, np.nan, np.float32)
        if self.settings.kind != "realtime" or not self._chunks:
            return start, 0
        start[: len(self._chunks[-1])] = self._chunks[-1]
        return start, self.settings.committed


def ensemble(chunks: Sequence[Float[np.ndarray, "_ a"]], n: int, decay: float) -> Float[np.ndarray, "n a"]:
    """Row j: sum_i w_i chunks[i][j] / sum_i w_i over the chunks that reach row j, w_i = exp(-decay i), i = 0 the oldest of them.

    Every chunk's row 0 is now. The newest must reach row n - 1.
    """
    rows = []
    for j in range(n):
        reaching = np.stack([chunk[j] for chunk in chunks if len(chunk) > j])
        weights = np.exp(-decay * np.arange(len(reaching), dtype=np.float32))
        rows.append(np.tensordot(weights / weights.sum(), reaching, 1))
    return np.stack(rows).astype(np.float32)
