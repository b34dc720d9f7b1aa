"""What every simulator is to the rest of the project: a gymnasium environment that speaks robot units and knows what they mean.

    observation = {"images": {"primary": uint8 [y x 3], ...}, "proprio": float32 [p], "language": str}
    action      = float32 [a], robot units, gripper 1 = open

Environments run in processes of their own, which import neither jax nor a model.
"""

import abc
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from ebt_jax.specs import ActionDimension, ActionSpec, CameraSpec, Dimension, LanguageSpec, ObservationSpec, Specs

if TYPE_CHECKING:
    from gymnasium import Env, spaces
else:
    try:
        from gymnasium import Env
    except ImportError:  # without a simulator's extra: what its numbers mean is known there, too
        Env = object

STATES_PER_SEED = 1_000_000
FIRST_EVALUATION_STATE = 100_000
MAX_SEED = 4_000
"""Initial states are 32-bit numbers."""


def demonstration_state(seed: int, attempt: int) -> int:
    """The initial state of a demonstrator's n-th attempt, for `Simulator.reset`; never one that a policy is evaluated on."""
    if not 0 <= attempt < FIRST_EVALUATION_STATE:
        raise ValueError(f"attempt must be in [0, {FIRST_EVALUATION_STATE:,}), got {attempt}. Go on with another seed.")
    return _first_state(seed) + attempt


def evaluation_state(seed: int, episode: int) -> int:
    """The initial state of an evaluation's n-th episode: 100000 + n for seed 0, as published PushT results have it."""
    return _first_state(seed) + FIRST_EVALUATION_STATE + episode


def _first_state(seed: int) -> int:
    if not 0 <= seed < MAX_SEED:
        published = f"Evaluation with seed 0 starts from the published states {FIRST_EVALUATION_STATE}, {FIRST_EVALUATION_STATE + 1}, ..."
        raise ValueError(f"seed must be in [0, {MAX_SEED}), got {seed}. {published}")
    return seed * STATES_PER_SEED


@dataclasses.dataclass(frozen=True)
class Embodiment:
    """What a simulated robot's numbers mean, and how long an episode may last.

    Attributes:
      proprio, action, frame, control_rate_hz: as in `ebt_jax.specs`.
      cameras: what `make(..., cameras=...)` can render, at the size it renders.
      max_steps: an episode is cut after this many actions.
    """

    proprio: tuple[Dimension, ...]
    action: tuple[ActionDimension, ...]
    frame: str
    control_rate_hz: float
    cameras: tuple[CameraSpec, ...]
    max_steps: int

    def specs(self) -> Specs:
        """As `Specs` of horizon 1, to compare with a policy's by `ebt_jax.specs.check_compatible`."""
        return Specs(
            ObservationSpec(self.cameras, self.proprio, LanguageSpec(), horizon=1),
            ActionSpec(self.action, self.frame, horizon=1, control_rate_hz=self.control_rate_hz),
        )


class Simulator(Env, metaclass=abc.ABCMeta):
    """A task of a suite. The state after `reset(seed=s)` is a pure function of (task, s), whatever happened before.

    `step` gives `info["success"]`, and terminated = success; it may be stepped on after that.
    """

    action_space: "spaces.Box"
    observation_space: "spaces.Dict"

    def __init__(self, embodiment: Embodiment, cameras: tuple[str, ...]) -> None:
        from gymnasium import spaces

        known = {camera.name: camera for camera in embodiment.cameras}
        unknown = sorted(set(cameras) - set(known))
        if unknown:
            raise ValueError(f"cameras must be among {sorted(known)}, got {unknown}.")
        self.embodiment, self.cameras = embodiment, cameras
        low, high = (np.array([getattr(d, side) for d in embodiment.action], np.float32) for side in ("low", "high"))
        self.action_space = spaces.Box(low, high, dtype=np.float32)
        images: dict[str, spaces.Space] = {
            name: spaces.Box(0, 255, (known[name].height, known[name].width, 3), np.uint8) for name in cameras
        }
        printable = "".join(map(chr, range(32, 127)))
        self.observation_space = spaces.Dict(
            {
                "images": spaces.Dict(images),
                "proprio": spaces.Box(-np.inf, np.inf, (len(embodiment.proprio),), np.float32),
                "language": spaces.Text(max_length=200, min_length=0, charset=printable),
            }
        )

    @property
    @abc.abstractmethod
    def instruction(self) -> str:
        """The task in words."""

    @abc.abstractmethod
    def picture(self) -> UInt8[np.ndarray, "y x 3"]:
        """The scene for a person to look at, of one size throughout an episode."""

    def expert_action(self) -> Float[np.ndarray, " a"]:
        """What a scripted expert would do now, robot units. Raises NotImplementedError where the suite has none."""
        raise NotImplementedError(f"{type(self).__name__} has no scripted expert.")

    def push(self, distance: float, turn: float) -> dict[str, Any]:
        """Moves the task's object by `distance` (the suite's unit of length) along the table; what is seen then, as from `reset`.

        Where to is the suite's choice from `turn` in [0, 1). Raises NotImplementedError where nothing can be moved.
        """
        raise NotImplementedError(f"{type(self).__name__} has nothing to push.")

    def metrics(self) -> dict[str, float]:
        """Numbers about the episode so far beyond success and return."""
        return {}

    def _checked(self, action: Any) -> Float[np.ndarray, " a"]:
        action = np.asarray(action, np.float32)
        if action.shape != self.action_space.shape or not np.isfinite(action).all():
            names = [dimension.name for dimension in self.embodiment.action]
            raise ValueError(f"action must be {len(names)} finite numbers {names}, got {action}.")
        return np.clip(action, self.action_space.low, self.action_space.high)
