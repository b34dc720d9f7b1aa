"""What the evaluating process and its workers say to each other. Imports neither jax nor a simulator."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from ebt_jax.simulators.disturbance import UNDISTURBED, Disturbance


class Start(NamedTuple):
    """Begin an episode: task, initial state, how many steps lie between two pictures (0: none are wanted), and what will go wrong."""

    task: str
    state: int
    picture_every: int
    disturbance: Disturbance = UNDISTURBED


class Plan(NamedTuple):
    """Execute these actions (robot units) until they run out or the episode ends; answer with the last `keep` observations."""

    actions: Float[np.ndarray, "n a"]
    keep: int


class Outcome(NamedTuple):
    """What happened since the last message.

    Attributes:
      observations: the newest last; see `ebt_jax.simulators.simulator`.
      rewards: one per action executed.
      success: now, at the last step.
      done: the episode is over, by success, by its step limit or by a failure.
      metrics: the simulator's, so far.
      pictures: for the video.
      failure: what the simulator raised; "" for nothing. What it did before that, and nobody was told of, is lost.
    """

    observations: list[dict[str, Any]]
    rewards: list[float]
    success: bool
    done: bool
    metrics: dict[str, float]
    pictures: list[UInt8[np.ndarray, "y x 3"]]
    failure: str = ""


class Failure(NamedTuple):
    """A worker cannot do what it is told: a simulator that cannot be made, something that its suite does not know."""

    message: str


class Lost(NamedTuple):
    """What a seat answers whose process died: of the episode there nothing is left."""

    message: str
