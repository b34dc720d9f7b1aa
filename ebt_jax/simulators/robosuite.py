"""robosuite: three tasks of a Panda arm at 20 Hz, behind robot units; those of robomimic's published demonstrations.

Their action is seven numbers in [-1, 1] for the controller OSC_POSE; ours is the displacement of the hand's target from where the
hand is, in metres (theirs x 0.05), the rotation vector that turns it, in radians (theirs x 0.5), both along the axes of the robot's
base, and the gripper g = (1 - theirs) / 2. Only the side of 1/2 that the gripper's number is on counts: above it the fingers open, below
they close, by a tenth of their range a step. An action that is held moves the hand by about a quarter of itself in a step.

Positions are in the world's frame, whose axes are the base's: the table's middle is at x = y = 0, its top at z = 0.8 (0.82 with pegs).
Quaternions are x, y, z, w. The hand's position is the point between its fingertips. What the object looks like from the
hand comes beside where it is: its position less the hand's, along the axes of the base, and its orientation in the hand's frame.

Initial state s is what robosuite draws after `numpy.random.seed(s)`: noise on the arm's joints, the object's place, turn and, of the
cube, size. A fresh environment is made for every episode.

Source: robosuite 1.5 (github.com/ARISE-Initiative/robosuite); 400 steps as robomimic (arXiv:2108.03298) has it.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from ebt_jax.simulators.rendering import Renderers, can_render, choose_backend, make_cheap
from ebt_jax.simulators.robosuite_experts import METRES, RADIANS, Expert, State, assemble_square, lift, place_can
from ebt_jax.simulators.simulator import Embodiment, Simulator
from ebt_jax.simulators.sketch import sketch
from ebt_jax.specs import ActionDimension, CameraSpec, Dimension

CAMERAS = {"primary": "agentview", "wrist": "robot0_eye_in_hand"}
CAMERA_SIZE = 84
PICTURE_SIZE = 256
FULLY_OPEN = 0.08
"""m between the fingers."""


class Scene(NamedTuple):
    """What tells one task from another.

    Attributes:
      thing: robosuite's name of the object.
      goal: m; where an environment of robosuite's wants it, 0 where the task has no such place.
      low, high: m; x and y that the object can be pushed to.
    """

    instruction: str
    thing: str
    goal: Callable[[Any], Float[np.ndarray, "3"]]
    low: tuple[float, float]
    high: tuple[float, float]
    expert: Expert


def _nowhere(env: Any) -> Float[np.ndarray, "3"]:
    return np.zeros(3)


def _middle_of_the_bin(env: Any) -> Float[np.ndarray, "3"]:
    return env.target_bin_placements[env.object_id]


def _peg(env: Any) -> Float[np.ndarray, "3"]:
    return env.sim.data.body_xpos[env.peg1_body_id]


SCENES = {
    "Lift": Scene("lift the cube", "cube", _nowhere, (-0.2, -0.2), (0.2, 0.2), lift),
    "PickPlaceCan": Scene("put the can into its bin", "Can", _middle_of_the_bin, (-0.045, -0.445), (0.245, -0.055), place_can),
    "NutAssemblySquare": Scene("put the square nut over the square peg", "SquareNut", _peg, (-0.2, 0.0), (0.05, 0.25), assemble_square),
}

EMBODIMENT = Embodiment(
    proprio=(
        *(Dimension(f"eef_{axis}", "m") for axis in "xyz"),
        *(Dimension(f"eef_q{axis}", "") for axis in "xyzw"),
        Dimension("gripper_opening", "m"),
        *(Dimension(f"object_{axis}", "m") for axis in "xyz"),
        *(Dimension(f"object_q{axis}", "") for axis in "xyzw"),
        *(Dimension(f"object_from_eef_{axis}", "m") for axis in "xyz"),
        *(Dimension(f"object_in_eef_q{axis}", "") for axis in "xyzw"),
        *(Dimension(f"goal_{axis}", "m") for axis in "xyz"),
    ),
    action=(
        *(ActionDimension(axis, "eef_delta", "m", low=-METRES, high=METRES) for axis in "xyz"),
        *(ActionDimension(f"rotation_{axis}", "eef_delta", "rad", low=-RADIANS, high=RADIANS) for axis in "xyz"),
        ActionDimension("gripper", "gripper", "", low=0.0, high=1.0),
    ),
    frame="base",
    control_rate_hz=20.0,
    cameras=tuple(CameraSpec(name, CAMERA_SIZE, CAMERA_SIZE) for name in ("primary", "wrist")),
    max_steps=400,
)
TASKS = tuple(SCENES)


class Robosuite(Simulator):
    """One task of robosuite. Without cameras it needs no OpenGL library.

    Raises ValueError for an unknown task or camera, ImportError without robosuite, RuntimeError where cameras are asked for
    and nothing renders.
    """

    def __init__(self, task: str, cameras: tuple[str, ...] = ()) -> None:
        if task not in SCENES:
            raise ValueError(f"task must be one of {', '.join(SCENES)}, got {task!r}.")
        super().__init__(EMBODIMENT, cameras)
        choose_backend(required=bool(cameras))
        self.task = task
        self._scene = SCENES[task]
        self._robosuite = _import()
        self._env: Any = None
        self._renderers = Renderers()
        self._steps = 0

    @property
    def instruction(self) -> str:
        return self._scene.instruction

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        self.close()
        with _global_generator(seed):
            self._env = self._robosuite.make(
                self.task,
                robots="Panda",
                controller_configs=self._robosuite.load_composite_controller_config(robot="Panda"),
                control_freq=int(EMBODIMENT.control_rate_hz),
                has_renderer=False,
                has_offscreen_renderer=False,
                use_camera_obs=False,
                use_object_obs=False,
                ignore_done=True,
                hard_reset=False,
                renderer="mujoco",
            )
            self._env.reset()
        make_cheap(self._model)
        self._steps = 0
        return self._observe(), {"success": False}

    def step(self, action: Float[np.ndarray, " a"]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        _, reward, _, _ = self._env.step(_to_robosuite(self._checked(action)))
        self._steps += 1
        success = bool(self._env._check_success())
        return self._observe(), float(reward), success, self._steps >= EMBODIMENT.max_steps, {"success": success}

    def push(self, distance: float, turn: float) -> dict[str, Any]:
        """Moves the object, level, in the direction 2 pi `turn`, as far as the place goes that it is taken from."""
        from mujoco import mj_forward  # pyright: ignore[reportAttributeAccessIssue]

        joint = self._model.joint(f"{self._scene.thing}_joint0")
        place, velocity = joint.qposadr[0], joint.dofadr[0]
        before = self._data.qpos[place : place + 2].copy()
        pushed = before + distance * np.array([np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)])
        low, high = np.minimum(self._scene.low, before), np.maximum(self._scene.high, before)
        self._data.qpos[place : place + 2] = np.clip(pushed, low, high)
        self._data.qvel[velocity : velocity + 6] = 0
        mj_forward(self._model, self._data)
        return self._observe()

    def expert_action(self) -> Float[np.ndarray, " a"]:
        return self._scene.expert(self._state()).astype(np.float32)

    def picture(self) -> UInt8[np.ndarray, "y x 3"]:
        """Camera "primary" where this process can render, else drawn from the state."""
        if can_render():
            return self._render("primary", PICTURE_SIZE)
        state = self._state()
        points = {"goal": state.goal, "object": state.thing, "hand": state.hand}
        seen = {name: point for name, point in points.items() if point.any()}
        low, high = np.array([-0.4, -0.5, 0.75]), np.array([0.4, 0.5, 1.25])
        return sketch(seen, low, high, state.opening / FULLY_OPEN, f"{self.instruction}, step {self._steps}")

    def close(self) -> None:
        self._renderers.close()
        if self._env is not None:
            self._env.close()
        self._env = None

    @property
    def _model(self) -> Any:
        return self._env.sim.model._model

    @property
    def _data(self) -> Any:
        return self._env.sim.data._data

    def _state(self) -> State:
        data = self._data
        hand, thing = data.body("robot0_right_hand"), data.body(f"{self._scene.thing}_main")
        fingers = [data.joint(f"gripper0_right_finger_joint{i}").qpos[0] for i in (1, 2)]
        return State(
            hand=data.site("gripper0_right_grip_site").xpos.copy(),
            hand_axes=hand.xmat.reshape(3, 3).copy(),
            opening=float(fingers[0] - fingers[1]),
            thing=thing.xpos.copy(),
            thing_axes=thing.xmat.reshape(3, 3).copy(),
            goal=np.array(self._scene.goal(self._env)),
        )

    def _observe(self) -> dict[str, Any]:
        state, data = self._state(), self._data
        hand, thing = data.body("robot0_right_hand").xquat, data.body(f"{self._scene.thing}_main").xquat
        seen = [state.thing, _xyzw(thing), state.thing - state.hand, _xyzw(_seen_from(hand, thing)), state.goal]
        return {
            "images": {name: self._render(name, CAMERA_SIZE) for name in self.cameras},
            "proprio": np.concatenate([state.hand, _xyzw(hand), [state.opening], *seen]).astype(np.float32),
            "language": self.instruction,
        }

    def _render(self, camera: str, size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
        import mujoco

        looks = mujoco.MjvOption()  # pyright: ignore[reportAttributeAccessIssue]
        looks.geomgroup[0] = 0  # shapes that collide, which nobody sees
        return self._renderers.draw(self._model, self._data, CAMERAS[camera], size, looks)


def _import() -> Any:
    """robosuite without its greetings, which go to a logger of its own, and without what it does to MUJOCO_GL."""
    import mujoco  # noqa: F401, before robosuite asks for EGL

    chosen = os.environ["MUJOCO_GL"]
    logging.getLogger("robosuite_logs").addFilter(_is_error)
    try:
        import robosuite
    except ImportError as error:
        raise ImportError(f"suite robosuite needs robosuite, got: {error}. Try pip install 'ebt_jax[sim]'.") from error
    finally:
        os.environ["MUJOCO_GL"] = chosen
    return robosuite


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


@contextlib.contextmanager
def _global_generator(seed: int) -> Iterator[None]:
    """numpy's global generator begins with `seed` inside, and goes on outside as if nothing had been."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def _to_robosuite(action: Float[np.ndarray, "7"]) -> Float[np.ndarray, "7"]:
    return np.concatenate([action[:3] / METRES, action[3:6] / RADIANS, 1 - 2 * action[6:]])


def _xyzw(quaternion: Float[np.ndarray, "4"]) -> Float[np.ndarray, "4"]:
    """From MuJoCo's order, w x y z."""
    return np.roll(quaternion, -1)


def _seen_from(frame: Float[np.ndarray, "4"], body: Float[np.ndarray, "4"]) -> Float[np.ndarray, "4"]:
    """The orientation of `body` in `frame`, w x y z; as continuous in time as both are, so its sign is what theirs make it."""
    real, imaginary = frame[0], -frame[1:]
    return np.concatenate([[real * body[0] - imaginary @ body[1:]], real * body[1:] + body[0] * imaginary + np.cross(imaginary, body[1:])])
