"""What goes wrong in an evaluation, to see whether a policy recovers: pushes, drops, noisy sensors. Nobody demonstrated any of it.

What happens in an episode is a function of its initial state, these settings and, where a push is away from the robot (PushT), of where
that stands: the same policy meets the same.
"""

import dataclasses

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class Disturbance:
    """What happens in every episode that lasts until then.

    Attributes:
      at: steps before the push and the release; 0 puts the push before the first observation, another initial state.
      push: how far the task's object is moved, in the suite's unit of length (PushT px, Meta-World and robosuite m). 0 moves nothing.
      release: steps in which the gripper is held open, whatever the policy asks. What it carries, it drops.
      noise: standard deviation of what is added to each number of the proprioception that a policy sees, in standard deviations of that
        number in the policy's training data.
    """

    at: int = 0
    push: float = 0.0
    release: int = 0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("at", "push", "release", "noise"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"{name} of a disturbance must be finite and at least 0, got {value}.")
        if self.at and not (self.push or self.release):
            raise ValueError(f"at of a disturbance must come with a push or a release, got at = {self.at} alone.")

    def check(self, numbers: int, max_steps: int) -> None:
        """For a policy that reads `numbers` of proprioception in episodes of at most `max_steps`.

        Raises ValueError for what would never happen there: its evaluation would be undisturbed, and say otherwise.
        """
        if self.noise and not numbers:
            raise ValueError(
                f"noise of a disturbance must be for a policy that reads proprioception, got {self.noise:g} for one that reads none "
                "(data.proprio). Leave it out, or push."
            )
        if self.at >= max_steps:
            raise ValueError(f"at of a disturbance must be less than {max_steps}, the steps of this suite's episodes, got {self.at}.")

    def happened(self, length: int) -> bool:
        """Whether an episode of so many steps met all of it, and did not end before."""
        return length > self.at

    def direction(self, state: int) -> float:
        """Of the push in the episode that begins at this initial state, in turns: U[0, 1)."""
        return float(np.random.default_rng((state, 0)).random())

    def noisy(self, proprio: Float[np.ndarray, " p"], scale: Float[np.ndarray, " p"], state: int, step: int) -> Float[np.ndarray, " p"]:
        """What the sensors say after `step` steps; `scale` is the training data's standard deviation."""
        drawn = np.random.default_rng((state, 1 + step)).standard_normal(len(proprio))
        return (proprio + self.noise * scale * drawn).astype(proprio.dtype)


UNDISTURBED = Disturbance()
