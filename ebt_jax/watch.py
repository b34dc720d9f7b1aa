"""Stall and retry from the course of one statistic over an episode: a state machine that sees one number a decision.

               above `high`                           for `patience` decisions together
    steady ------------------> doubtful ---------------------------------------------> stalled
       ^                           |                                                      |
       +---- at or below `low` ----+------------------------------------------------------+
             (one retry is counted each time)

A robot that is stuck also says so by standing still: a statistic that moves by no more than `flat` for `patience` decisions is a stall at
any height. Between `low` and `high` nothing changes, so that a value that trembles about one level is no retry.
"""

import dataclasses
import math
from typing import NamedTuple

STEADY, DOUBTFUL, STALLED = "steady", "doubtful", "stalled"


@dataclasses.dataclass(frozen=True)
class Levels:
    """Settings, in units of the statistic; `Policy.abstain(risk, task).threshold` is a `high` whose false alarms are known.

    Attributes:
      high, low: where doubt begins, and where it ends.
      patience: decisions in doubt, or without movement, that make a stall.
      flat: largest movement of a value that counts as standing still; -1 never does.
    """

    high: float
    low: float
    patience: int = 4
    flat: float = -1.0

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"levels.low must be at most levels.high = {self.high}, got {self.low}.")
        if self.patience < 1:
            raise ValueError(f"levels.patience must be at least 1, got {self.patience}.")


class Watch(NamedTuple):
    """What is known of an episode so far; `Watch()` before its first decision.

    Attributes:
      state: "steady", "doubtful" or "stalled".
      retries: times that doubt came and went.
      doubtful, still: decisions in a row in doubt; within `flat` of `anchor`.
      anchor: the value since which the course has stood still; NaN before the first.
    """

    state: str = STEADY
    retries: int = 0
    doubtful: int = 0
    still: int = 0
    anchor: float = math.nan


def watch(levels: Levels, before: Watch, value: float) -> Watch:
    """The next state. A NaN says nothing: everything stays as it was."""
    if math.isnan(value):
        return before
    same = abs(value - before.anchor) <= levels.flat
    still, anchor = (before.still + 1, before.anchor) if same else (1, value)
    in_doubt = value > (levels.low if before.doubtful else levels.high)
    doubtful = before.doubtful + 1 if in_doubt else 0
    retries = before.retries + (before.doubtful > 0 and not in_doubt)
    stalled = doubtful >= levels.patience or (levels.flat >= 0 and still >= levels.patience)
    return Watch(STALLED if stalled else DOUBTFUL if in_doubt else STEADY, retries, doubtful, still, anchor)
