"""Meta-World: fifty tasks of a Sawyer arm at 80 Hz, behind robot units.

Their action is four numbers in [-1, 1]; ours is the displacement of the hand's target in metres (theirs / 100) and the gripper
g = (1 - theirs) / 2. In between open (1) and closed (0) the gripper's number is the force of the squeeze: 1/2 is none.
Their observation is [now (18), previous step (18), goal (3)]; ours is [now, goal], since policies keep their own history.

Initial state s is task s % 50 of `metaworld.MT1(task, seed=s // 50)`. A fresh environment is made for every episode: some tasks
(doors) carry something over from one episode to the next.

Source: Meta-World 3.1 (github.com/Farama-Foundation/Metaworld).
"""

import copy
import functools
import warnings
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ebt_jax.simulators.metaworld_tasks import INSTRUCTIONS
from ebt_jax.simulators.rendering import Renderers, can_render, choose_backend, make_cheap
from ebt_jax.simulators.simulator import Embodiment, Simulator
from ebt_jax.simulators.sketch import sketch
from ebt_jax.specs import ActionDimension, CameraSpec, Dimension

METRES = 0.01
TASKS_PER_SEED = 50
CAMERAS = {"primary": "corner2", "secondary": "topview", "wrist": "gripperPOV"}
CORNER2_POSITION = (0.75, 0.075, 0.7)
"""Nearer than Meta-World has it, as is usual for its pictures; it also hangs upside down, which `_render` undoes."""
CAMERA_SIZE = 128
PICTURE_SIZE = 256

EMBODIMENT = Embodiment(
    proprio=(
        *(Dimension(f"hand_{axis}", "m") for axis in "xyz"),
        Dimension("gripper_opening", ""),
        *(
            Dimension(f"{thing}_{axis}", "m" if axis in ("x", "y", "z") else "")
            for thing in ("object", "object2")
            for axis in ("x", "y", "z", "q0", "q1", "q2", "q3")
        ),
        *(Dimension(f"goal_{axis}", "m") for axis in "xyz"),
    ),
    action=(
        *(ActionDimension(f"hand_{axis}", "eef_delta", "m", low=-METRES, high=METRES) for axis in "xyz"),
        ActionDimension("gripper", "gripper", "", low=0.0, high=1.0),
    ),
    frame="base",
    control_rate_hz=80.0,
    cameras=tuple(CameraSpec(name, CAMERA_SIZE, CAMERA_SIZE) for name in ("primary", "secondary", "wrist")),
    max_steps=500,
)
TASKS = tuple(INSTRUCTIONS)


class MetaWorld(Simulator):
    """One Meta-World task. Without cameras it needs no OpenGL library.

    Raises ValueError for an unknown task or camera, ImportError without Meta-World, RuntimeError where cameras are asked for
    and nothing renders.
    """

    def __init__(self, task: str, cameras: tuple[str, ...] = ()) -> None:
        if task not in INSTRUCTIONS:
            raise ValueError(f"task must be one of {', '.join(INSTRUCTIONS)}, got {task!r}.")
        super().__init__(EMBODIMENT, cameras)
        choose_backend(required=bool(cameras))
        try:
            from metaworld.policies import ENV_POLICY_MAP
        except ImportError as error:
            raise ImportError(f"suite metaworld needs Meta-World, got: {error}. Try pip install 'ebt_jax[metaworld]'.") from error
        self.task = task
        self._expert = ENV_POLICY_MAP[task]()
        self._env: Any = None
        self._renderers = Renderers()
        self._raw = np.zeros(39)
        self._steps = 0

    @property
    def instruction(self) -> str:
        return INSTRUCTIONS[self.task]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        self.close()
        make, tasks = _tasks(self.task, seed // TASKS_PER_SEED)
        self._env = make()
        _dress(self._env.model)
        self._env.set_task(tasks[seed % TASKS_PER_SEED])
        self._raw, _ = self._env.reset()
        self._steps = 0
        return self._observe(), {"success": False}

    def step(self, action: Float[np.ndarray, " a"]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self._raw, reward, _, _, info = self._env.step(_to_metaworld(self._checked(action)))
        self._steps += 1
        success = bool(info["success"])
        return self._observe(), float(reward), success, self._steps >= EMBODIMENT.max_steps, {"success": success}

    def push(self, distance: float, turn: float) -> dict[str, Any]:
        """Moves the first object that lies free, level, in the direction 2 pi `turn`.

        Raises NotImplementedError for tasks without one, and for those that leave it alone (reaching).
        """
        from mujoco import mj_forward, mjtJoint  # pyright: ignore[reportAttributeAccessIssue]

        model, data = self._env.model, self._env.data
        free = np.flatnonzero(model.jnt_type == mjtJoint.mjJNT_FREE)
        if not free.size or self.task.startswith("reach-"):
            raise NotImplementedError(f"task {self.task!r} has no object of its own that lies free, so that none can be pushed.")
        position, velocity = model.jnt_qposadr[free[0]], model.jnt_dofadr[free[0]]
        data.qpos[position : position + 2] += distance * np.array([np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)])
        data.qvel[velocity : velocity + 6] = 0
        mj_forward(model, data)
        self._raw = np.concatenate([self._env._get_curr_obs_combined_no_goal(), self._raw[18:]])
        return self._observe()

    def expert_action(self) -> Float[np.ndarray, " a"]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experts ask for more than [-1, 1] and count on being clipped
            return _from_metaworld(np.clip(self._expert.get_action(self._raw), -1, 1))

    def picture(self) -> UInt8[np.ndarray, "y x 3"]:
        """Camera "primary" where this process can render, else drawn from the state."""
        if can_render():
            return self._render("primary", PICTURE_SIZE)
        raw = self._raw
        points = {"goal": raw[36:39], "object": raw[4:7], "object2": raw[11:14], "hand": raw[:3]}
        seen = {name: point for name, point in points.items() if point.any()}
        return sketch(seen, np.array([-0.4, 0.4, 0.0]), np.array([0.4, 1.0, 0.5]), float(raw[3]), f"{self.instruction}, step {self._steps}")

    def close(self) -> None:
        self._renderers.close()
        if self._env is not None:
            self._env.close()
        self._env = None

    def _observe(self) -> dict[str, Any]:
        proprio = np.concatenate([self._raw[:18], self._raw[36:39]]).astype(np.float32)
        return {
            "images": {name: self._render(name, CAMERA_SIZE) for name in self.cameras},
            "proprio": proprio,
            "language": self.instruction,
        }

    def _render(self, camera: str, size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
        name = CAMERAS[camera]
        image = self._renderers.draw(self._env.model, self._env.data, name, size)
        return np.ascontiguousarray(image[::-1, ::-1]) if name == "corner2" else image


@functools.lru_cache(maxsize=16)
def _tasks(task: str, seed: int) -> tuple[Any, list[Any]]:
    """The environment's class (`_quick`) and the fifty initial states of one Meta-World seed; takes a second."""
    import metaworld

    benchmark = metaworld.MT1(task, seed=seed)
    return _quick(benchmark.train_classes[task]), benchmark.train_tasks


@functools.cache
def _quick(environment: type) -> type:
    """The class, whose instances copy the compiled model in place of compiling it: that takes 0.2 s, everything else of a reset 0.03."""
    from mujoco import MjData, MjModel  # pyright: ignore[reportAttributeAccessIssue]

    compiled = functools.cache(MjModel.from_xml_path)

    class Quick(environment):
        def _initialize_simulation(self) -> tuple[Any, Any]:
            model = copy.copy(compiled(self.fullpath))
            offscreen = model.vis.global_
            offscreen.offwidth, offscreen.offheight = max(offscreen.offwidth, self.width), max(offscreen.offheight, self.height)
            return model, MjData(model)

    return Quick


def _dress(model: Any) -> None:
    """Makes pictures cheap and corner2 near."""
    make_cheap(model)
    model.camera("corner2").pos[:] = CORNER2_POSITION


def _to_metaworld(action: Float[np.ndarray, "4"]) -> Float[np.ndarray, "4"]:
    return np.append(action[:3] / METRES, 1 - 2 * action[3]).astype(np.float32)


def _from_metaworld(action: Float[np.ndarray, "4"]) -> Float[np.ndarray, "4"]:
    return np.append(action[:3] * METRES, (1 - action[3]) / 2).astype(np.float32)
