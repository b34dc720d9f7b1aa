"""Which frames are real: one rule for the loader and the policy, so that a robot's masks are those of training."""

import numpy as np
from jaxtyping import Bool, UInt8

from ebt_jax.specs import GOAL


def shown_steps(camera: str) -> slice:
    """Of the observation steps those where a camera may show something: a goal at the newest alone, any other at all of them."""
    return slice(-1, None) if camera.startswith(GOAL) else slice(None)


def delivered(frames: UInt8[np.ndarray, "*b y x c"]) -> Bool[np.ndarray, "*b"]:
    """False where a frame is all black: datasets and robots fill a camera that is not there so."""
    *batch, y, x, c = frames.shape
    return np.asarray(frames.reshape(*batch, y * x * c).any(axis=-1))
