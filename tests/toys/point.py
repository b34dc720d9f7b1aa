"""A point in the plane goes to a goal. Initial state s is drawn by numpy.random.default_rng(s)."""

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ebt_jax.simulators.simulator import Embodiment, Simulator
from ebt_jax.specs import ActionDimension, Dimension

EMBODIMENT = Embodiment(
    proprio=tuple(Dimension(name, "m") for name in ("x", "y", "goal_x", "goal_y")),
    action=tuple(ActionDimension(name, "eef_delta", "m", -0.05, 0.05) for name in ("dx", "dy")),
    frame="world",
    control_rate_hz=10.0,
    cameras=(),
    max_steps=60,
)
TASKS = ("go",)


class Point(Simulator):
    """Come within 3 cm of the goal. Raises ValueError for an unknown task."""

    def __init__(self, task: str, cameras: tuple[str, ...] = ()) -> None:
        if task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}.")
        super().__init__(EMBODIMENT, cameras)
        self._at, self._goal, self._steps = np.zeros(2), np.zeros(2), 0

    @property
    def instruction(self) -> str:
        return "go to the goal"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        state = int(self.np_random.integers(2**31)) if seed is None else seed
        (self._at, self._goal), self._steps = np.random.default_rng(state).uniform(-0.5, 0.5, (2, 2)), 0
        return self._observe(), {"success": False}

    def step(self, action: Float[np.ndarray, " a"]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self._at, self._steps = self._at + self._checked(action), self._steps + 1
        distance = float(np.linalg.norm(self._goal - self._at))
        success, truncated = distance < 0.03, self._steps >= EMBODIMENT.max_steps
        return self._observe(), -distance, success, truncated, {"success": success}

    def expert_action(self) -> Float[np.ndarray, " a"]:
        return np.clip(self._goal - self._at, self.action_space.low, self.action_space.high).astype(np.float32)

    def picture(self) -> UInt8[np.ndarray, "y x 3"]:
        frame = np.full((128, 128, 3), 255, np.uint8)
        for place, colour in ((self._goal, (0, 160, 0)), (self._at, (200, 0, 0))):
            x, y = np.clip(64 + 100 * place, 4, 124).astype(int)
            frame[y - 3 : y + 4, x - 3 : x + 4] = colour
        return frame

    def _observe(self) -> dict[str, Any]:
        return {"images": {}, "proprio": np.concatenate([self._at, self._goal]).astype(np.float32), "language": self.instruction}
