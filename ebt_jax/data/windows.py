"""The window at step t of an episode: rows t-H+1 .. t to see, rows t .. t+h-1 to do; what falls outside is repeated and masked.

H = 2, h = 4, an episode of steps 0 .. 6        (parentheses: masked)
t = 0    sees (0) 0    does 0 1 2 3
t = 5    sees  4  5    does 5 6 (6) (6)
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int


class Windows(NamedTuple):
    """Steps within each window's own episode, and which of them happened."""

    history: Int[np.ndarray, "b t"]
    timestep_mask: Bool[np.ndarray, "b t"]
    chunk: Int[np.ndarray, "b h"]
    action_mask: Bool[np.ndarray, "b h"]


def windows(steps: Int[np.ndarray, " b"], lengths: Int[np.ndarray, " b"], observation_horizon: int, action_horizon: int) -> Windows:
    """One window for each (step, length of its episode): newest observation and first action at that step."""
    history = steps[:, None] + np.arange(1 - observation_horizon, 1)
    chunk = steps[:, None] + np.arange(action_horizon)
    last = lengths[:, None] - 1
    return Windows(np.maximum(history, 0), history >= 0, np.minimum(chunk, last), chunk <= last)
