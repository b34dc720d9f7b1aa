"""PushT (gym-pusht) under the protocol of the published results: the same initial states, coverage as score, 300 steps at 10 Hz.

Initial state s is drawn as Diffusion Policy's runner draws it, from `numpy.random.RandomState(s)`; published tests use
s = 100000, 100001, ... gym-pusht places the block before it turns it (their "legacy" reset, kept by both): turning goes around the
centre of mass, so the block does not stay at the position that was drawn. Demonstration k of the 206 human ones starts from
s = k and replays exactly.

Sources: gym-pusht (github.com/huggingface/gym-pusht), diffusion_policy (github.com/real-stanford/diffusion_policy).
"""

import os
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ebt_jax.data import pusht
from ebt_jax.simulators.simulator import Embodiment, Simulator
from ebt_jax.specs import CameraSpec

EMBODIMENT = Embodiment(
    proprio=pusht.PROPRIO,
    action=pusht.ACTION,
    frame=pusht.FRAME,
    control_rate_hz=pusht.CONTROL_RATE_HZ,
    cameras=(CameraSpec("primary", pusht.IMAGE_SIZE, pusht.IMAGE_SIZE),),
    max_steps=300,
)
TASKS = ("pusht",)
FULL = 0.95
"""Coverage of the goal that counts as done."""
PICTURE_SIZE = 256
BLOCK_RANGE = (100, 400)
"""px; of both coordinates of the block in initial states."""


class PushT(Simulator):
    """Push the block until it covers more than 95 % of the goal (success).

    `metrics` gives the score, which is what published tables show: the largest coverage so far / 0.95, at most 1; and the
    coverages themselves. Raises ValueError for an unknown task or camera, ImportError without gym-pusht.
    """

    def __init__(self, task: str, cameras: tuple[str, ...] = ()) -> None:
        if task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}.")
        super().__init__(EMBODIMENT, cameras)
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        try:
            from gym_pusht.envs.pusht import PushTEnv
        except ImportError as error:
            raise ImportError(f"suite pusht needs gym-pusht, got: {error}. Try pip install 'ebt_jax[sim]'.") from error
        self._env = PushTEnv(obs_type="pixels" if cameras else "state", visualization_width=PICTURE_SIZE, visualization_height=PICTURE_SIZE)
        self._steps = 0
        self._coverage = [0.0]

    @property
    def instruction(self) -> str:
        return pusht.INSTRUCTION

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        seen, info = self._env.reset(options={"reset_to_state": initial_state(seed)})
        self._env._last_action = None  # which gym-pusht keeps, and draws into the next episode's first picture
        self._steps, self._coverage = 0, [0.0]
        return self._observe(seen, info), {"success": False}

    def step(self, action: Float[np.ndarray, " a"]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        seen, _, _, _, info = self._env.step(self._checked(action).astype(np.float64))
        coverage = round(float(info["coverage"]), 12)  # gym-pusht joins the block's halves in no fixed order
        self._steps += 1
        self._coverage.append(coverage)
        success, truncated = coverage > FULL, self._steps >= EMBODIMENT.max_steps
        return self._observe(seen, info), min(coverage / FULL, 1.0), success, truncated, {"success": success}

    def push(self, distance: float, turn: float) -> dict[str, Any]:
        """Moves the block away from the agent, at most a sixth of a turn to either side, as far as initial states go (100 to 400 px).

        One that lies beyond them is moved no farther out. The score counts from then on.
        """
        block, agent = self._env.block, self._env.agent
        away = np.arctan2(block.position.y - agent.position.y, block.position.x - agent.position.x)
        angle = away + 2 * np.pi * (turn - 0.5) / 3
        before = np.array([block.position.x, block.position.y])
        low, high = np.minimum(BLOCK_RANGE[0], before), np.maximum(BLOCK_RANGE[1], before)
        x, y = np.clip(before + distance * np.array([np.cos(angle), np.sin(angle)]), low, high)
        block.position, block.velocity, block.angular_velocity = (float(x), float(y)), (0.0, 0.0), 0.0
        self._env.space.reindex_shapes_for_body(block)
        self._coverage = [round(float(self._env._get_coverage()), 12)]
        return self._observe(self._env.get_obs(), self._env._get_info())

    def metrics(self) -> dict[str, float]:
        best = max(self._coverage)
        return {"score": min(best / FULL, 1.0), "max_coverage": best, "final_coverage": self._coverage[-1]}

    def picture(self) -> UInt8[np.ndarray, "y x 3"]:
        return np.asarray(self._env.render(), np.uint8)

    def close(self) -> None:
        self._env.close()

    def _observe(self, seen: Any, info: dict[str, Any]) -> dict[str, Any]:
        proprio = np.concatenate([info["pos_agent"], pusht.keypoints(info["block_pose"])]).astype(np.float32)
        return {"images": dict.fromkeys(self.cameras, seen), "proprio": proprio, "language": self.instruction}


def initial_state(seed: int) -> Float[np.ndarray, "5"]:
    """Agent x, y, block x, y (px) and angle (rad) of initial state `seed`, before the block is turned."""
    generator = np.random.RandomState(seed)
    agent = [generator.randint(50, 450), generator.randint(50, 450)]
    block = [generator.randint(*BLOCK_RANGE), generator.randint(*BLOCK_RANGE)]
    return np.array([*agent, *block, generator.randn() * 2 * np.pi - np.pi])
