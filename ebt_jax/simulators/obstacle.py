"""Two ways around: reach a goal behind a pillar, which demonstrations pass on either side and the mean of them runs into.

The arm, its numbers and its goals are those of Meta-World's reach-v3. The pillar is not in the simulator: a vertical cylinder halfway
between where the hand starts and the goal, so a policy knows where it is from what it sees. A hand that was in it fails for good, whatever
comes later.

    side     +1 or -1, a coin tossed from the initial state: the same observation was shown with both
    expert   past the pillar on the side that it tossed, or on the one that it is well on already, then to the goal

Initial state s is that of reach-v3.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ebt_jax.simulators.metaworld import EMBODIMENT, METRES, MetaWorld
from ebt_jax.simulators.sketch import sketch

__all__ = ["EMBODIMENT", "TASKS", "Obstacle"]

TASKS = ("reach-around",)
RADIUS = 0.06
"""m; of the pillar."""
CLEAR = 0.04
"""m; what the expert keeps from its surface."""
SURE = 0.01
"""m; a hand so far to a side passes on that side, whatever was tossed."""
GAIN = 0.6
"""Displacement that is asked for, per displacement that is left: the hand's target runs ahead of the hand."""
OPEN = 1.0


class Obstacle(MetaWorld):
    """Reach the goal within 5 cm, around the pillar. Without cameras it needs no OpenGL library.

    `metrics` gives the side that the hand passed on (1 or -1, seen from above 1 is the left of who looks at the goal; 0 while it has not)
    and the least clearance so far (m; negative inside). Raises ValueError for an unknown task or camera, ImportError without Meta-World.
    """

    def __init__(self, task: str, cameras: tuple[str, ...] = ()) -> None:
        if task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}.")
        super().__init__("reach-v3", cameras)
        self._start = np.zeros(2)
        self._tossed = 1
        self._clearance, self._side = np.inf, 0

    @property
    def instruction(self) -> str:
        return "reach the goal around the pillar"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        observation, info = super().reset(seed=seed, options=options)
        self._start = observation["proprio"][:2].astype(float)
        self._tossed = 1 if np.random.default_rng((seed, 2)).random() < 0.5 else -1
        self._clearance, self._side = np.inf, 0
        return observation, info

    def step(self, action: Float[np.ndarray, " a"]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        observation, reward, success, truncated, _ = super().step(action)
        along, across = self._from_pillar()
        self._clearance = min(self._clearance, float(np.hypot(along, across)) - RADIUS)
        if not self._side and along > 0:
            self._side = 1 if across > 0 else -1
        success = success and self._clearance > 0
        return observation, reward, success, truncated, {"success": success}

    def expert_action(self) -> Float[np.ndarray, " a"]:
        hand, goal = self._raw[:3].astype(float), self._raw[36:39].astype(float)
        along, across = self._from_pillar()
        side = self._tossed if abs(across) < SURE else np.sign(across)
        target = goal
        if along < 0.8 * RADIUS:  # not past it yet
            forward, left = self._directions()
            ahead = -0.02 if along < -0.03 else along + 0.05
            beside = self._pillar() + side * (RADIUS + CLEAR) * left + ahead * forward
            target = np.append(beside, hand[2] + 0.5 * (goal[2] - hand[2]))
        displacement = GAIN * (target - hand)
        return np.append(displacement * min(1.0, METRES / np.abs(displacement).max()), OPEN).astype(np.float32)

    def push(self, distance: float, turn: float) -> dict[str, Any]:
        raise NotImplementedError("task 'reach-around' has no object, so that none can be pushed.")

    def metrics(self) -> dict[str, float]:
        return {"side": float(self._side), "clearance": self._clearance}

    def picture(self) -> UInt8[np.ndarray, "y x 3"]:
        """Drawn from the state, with the pillar, which no camera sees."""
        middle = self._pillar()
        circle = [middle + RADIUS * np.array([np.cos(angle), np.sin(angle)]) for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False)]
        seen = {f"pillar {number}": np.append(point, 0.1) for number, point in enumerate(circle)}
        seen |= {"goal": self._raw[36:39], "hand": self._raw[:3]}
        return sketch(
            seen, np.array([-0.3, 0.5, 0.0]), np.array([0.3, 1.0, 0.4]), float(self._raw[3]), f"{self.instruction}, step {self._steps}"
        )

    def _pillar(self) -> Float[np.ndarray, "2"]:
        """x and y of its middle, m."""
        return (self._start + self._raw[36:38]) / 2

    def _directions(self) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]:
        """From the start to the goal, and to the left of that, seen from above."""
        way = self._raw[36:38] - self._start
        forward = way / np.linalg.norm(way)
        return forward, np.array([-forward[1], forward[0]])

    def _from_pillar(self) -> tuple[float, float]:
        """Where the hand is from the pillar's middle: towards the goal and to the left, m."""
        forward, left = self._directions()
        offset = self._raw[:2] - self._pillar()
        return float(offset @ forward), float(offset @ left)
