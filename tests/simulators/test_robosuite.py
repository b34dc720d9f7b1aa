"""robosuite behind robot units: reproducible, solvable by our experts, and no OpenGL for states."""

import os
import subprocess
import sys

import numpy as np
import pytest

from ebt_jax import simulators
from ebt_jax.simulators import robosuite
from ebt_jax.simulators.demonstrate import demonstrate
from ebt_jax.simulators.rendering import find_backend
from ebt_jax.simulators.robosuite import EMBODIMENT, TASKS, Robosuite
from ebt_jax.simulators.robosuite_experts import METRES, RADIANS

NAMES = [dimension.name for dimension in EMBODIMENT.proprio]
STILL = np.array([0, 0, 0, 0, 0, 0, 1], np.float32)


def numbers(observation: dict, *names: str) -> np.ndarray:
    return observation["proprio"][[NAMES.index(name) for name in names]].astype(float)


def place(observation: dict, of: str = "object") -> np.ndarray:
    return numbers(observation, *(f"{of}_{axis}" for axis in "xyz"))


def rotation(observation: dict, of: str) -> np.ndarray:
    """The matrix of a quaternion x, y, z, w."""
    x, y, z, w = numbers(observation, *(f"{of}_q{axis}" for axis in "xyzw"))
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross


def solve(simulator: Robosuite, steps: int) -> int | None:
    """After how many steps the expert succeeds, None if not within `steps`."""
    for step in range(steps):
        if simulator.step(simulator.expert_action())[2]:
            return step + 1
    return None


@pytest.fixture(scope="module")
def cube() -> Robosuite:
    return Robosuite("Lift")


def test_robot_units_are_those_of_their_controller(cube: Robosuite) -> None:
    ours = np.array([0.05, -0.025, 0, 0.5, -0.25, 0, 1], np.float32)
    np.testing.assert_allclose(robosuite._to_robosuite(ours), [1, -0.5, 0, 1, -0.5, 0, -1], atol=1e-7)  # -1 opens
    cube.reset(seed=0)
    controller = cube._env.robots[0].part_controllers["right"]
    np.testing.assert_array_equal(controller.output_max, [METRES] * 3 + [RADIANS] * 3)
    np.testing.assert_array_equal(controller.input_max, np.ones(6))


def test_a_displacement_in_metres_moves_the_hands_target_by_it(cube: Robosuite) -> None:
    before, _ = cube.reset(seed=0)
    cube.step(np.array([0.01, -0.02, 0.03, 0, 0, 0, 1], np.float32))
    controller = cube._env.robots[0].part_controllers["right"]
    target = controller.origin_pos + controller.origin_ori @ controller.goal_pos
    np.testing.assert_allclose(target - place(before, "eef"), [0.01, -0.02, 0.03], atol=2e-4)
    for _ in range(15):
        after, *_ = cube.step(np.array([0.02, 0, 0, 0, 0, 0, 1], np.float32))
    moved = place(after, "eef") - place(before, "eef")
    assert moved[0] > 0.04
    assert np.abs(moved[1:]).max() < 0.02


def test_a_rotation_vector_turns_the_hand_about_the_axes_of_the_base(cube: Robosuite) -> None:
    before, _ = cube.reset(seed=0)
    for _ in range(15):
        after, *_ = cube.step(np.array([0, 0, 0, 0, 0, 0.2, 1], np.float32))
    turned = rotation(after, "eef") @ rotation(before, "eef").T
    assert np.arctan2(turned[1, 0], turned[0, 0]) > 0.2  # counterclockwise from above
    assert turned[2, 2] > 0.98


def test_the_gripper_opens_at_1_and_closes_at_0(cube: Robosuite) -> None:
    cube.reset(seed=0)
    opening = {}
    for gripper in (1.0, 0.0):
        for _ in range(20):
            observation, *_ = cube.step(np.array([0, 0, 0, 0, 0, 0, gripper], np.float32))
        (opening[gripper],) = numbers(observation, "gripper_opening")
    assert opening[1.0] > 0.07
    assert opening[0.0] < 0.01


@pytest.mark.parametrize("task", TASKS)
def test_the_initial_state_is_a_function_of_the_seed_whatever_came_before(task: str) -> None:
    one, other = Robosuite(task), Robosuite(task)
    numpys = np.random.get_state(legacy=False)  # noqa: NPY002
    first, _ = one.reset(seed=7)
    np.testing.assert_equal(np.random.get_state(legacy=False), numpys)  # noqa: NPY002
    different, _ = other.reset(seed=3)
    for _ in range(5):
        other.step(other.expert_action())
    again, _ = other.reset(seed=7)
    np.testing.assert_array_equal(first["proprio"], again["proprio"])
    for _ in range(3):
        action = one.expert_action()
        np.testing.assert_array_equal(one.step(action)[0]["proprio"], other.step(action)[0]["proprio"])
    assert np.abs(place(different) - place(first)).max() > 1e-3
    np.testing.assert_array_equal(place(different, "goal"), place(first, "goal"))
    assert place(first, "goal").any() == (task != "Lift")


def test_the_object_is_seen_from_the_world_and_from_the_hand(cube: Robosuite) -> None:
    cube.reset(seed=4)
    for _ in range(8):
        observation, *_ = cube.step(cube.expert_action())
    np.testing.assert_allclose(place(observation, "object_from_eef"), place(observation) - place(observation, "eef"), atol=1e-6)
    seen = rotation(observation, "eef") @ rotation(observation, "object_in_eef")
    np.testing.assert_allclose(seen, rotation(observation, "object"), atol=1e-5)


def test_a_cube_above_the_table_is_success(cube: Robosuite) -> None:
    cube.reset(seed=0)
    _, reward, terminated, truncated, info = cube.step(STILL)
    assert (reward, terminated, truncated, info["success"]) == (0.0, False, False, False)
    cube._data.joint("cube_joint0").qpos[2] = 1.0
    _, reward, terminated, _, info = cube.step(STILL)
    assert (reward, terminated, info["success"]) == (pytest.approx(1.0), True, True)
    cube._steps = EMBODIMENT.max_steps - 1
    assert cube.step(STILL)[3]


@pytest.mark.parametrize("task", ["PickPlaceCan", "NutAssemblySquare"])
def test_an_expert_solves_its_task(task: str) -> None:
    simulator = Robosuite(task)
    simulator.reset(seed=100_000)
    assert solve(simulator, 200) is not None


@pytest.mark.slow
@pytest.mark.parametrize(("task", "least"), [("Lift", 10), ("PickPlaceCan", 9), ("NutAssemblySquare", 9)])
def test_experts_show_their_tasks_with_noise_on_what_is_executed(task: str, least: int) -> None:
    simulator = Robosuite(task)
    shown = [demonstrate(simulator, seed, noise=0.1) for seed in range(10)]
    assert sum(episode is not None for episode in shown) >= least


def test_a_pushed_cube_lies_elsewhere_and_is_found(cube: Robosuite) -> None:
    cube.reset(seed=1)
    for _ in range(15):
        before, *_ = cube.step(cube.expert_action())
    after = cube.push(0.06, 0.25)
    np.testing.assert_allclose(place(after) - place(before), [0, 0.06, 0], atol=2e-3)
    assert solve(cube, 80) is not None


def test_a_can_is_not_pushed_out_of_its_bin() -> None:
    simulator = Robosuite("PickPlaceCan")
    simulator.reset(seed=0)
    x, y, _ = place(simulator.push(1.0, 0.0))
    assert x == pytest.approx(robosuite.SCENES["PickPlaceCan"].high[0], abs=1e-3)
    assert y < robosuite.SCENES["PickPlaceCan"].high[1]


def test_unknown_tasks_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"Lift, PickPlaceCan, NutAssemblySquare, got 'ToolHang'"):
        simulators.make("robosuite", "ToolHang")


def run(script: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environ)


def test_states_need_no_opengl_and_nothing_is_said() -> None:
    done = run("""
import logging, os, sys
sys.modules["OpenGL"] = None  # importing it is an ImportError
import numpy as np
from ebt_jax import simulators
simulator = simulators.make("robosuite", "Lift")
simulator.reset(seed=0)
simulator.step(np.array([0, 0, 0, 0, 0, 0, 1], np.float32))
print(simulator.picture().shape, os.environ["MUJOCO_GL"], logging.getLogger().handlers)
loaded = open("/proc/self/maps").read()
assert not [name for name in ("libGL", "libEGL", "libOSMesa", "libGLX") if name + "." in loaded]
""")
    assert done.stdout.strip() == "(208, 384, 3) disable []", done.stderr
    assert "robosuite" not in done.stderr


@pytest.mark.skipif(find_backend() is None, reason="no OpenGL backend renders here")
def test_cameras_show_the_scene() -> None:
    done = run("""
import numpy as np
from ebt_jax import simulators
simulator = simulators.make("robosuite", "Lift", ("primary", "wrist"))
first, _ = simulator.reset(seed=0)
for _ in range(15):
    later, *_ = simulator.step(simulator.expert_action())
for name in ("primary", "wrist"):
    image, after = first["images"][name], later["images"][name]
    assert image.shape == (84, 84, 3) and image.dtype == np.uint8, (name, image.shape)
    assert image.std() > 10 and np.abs(image.astype(int) - after).mean() > 0.3, name
def cube(observation):
    red, green, blue = np.moveaxis(observation["images"]["primary"].astype(int), -1, 0)
    return np.argwhere((red > 60) & (red > 1.6 * green) & (red > 1.6 * blue)).mean(0)
first, _ = simulator.reset(seed=0)
nearer = simulator.push(0.1, 0.0)
right = simulator.push(0.1, 0.25)
assert cube(nearer)[0] > cube(first)[0] + 3, (cube(first), cube(nearer))  # lower in the picture: it is upright
assert cube(right)[1] > cube(nearer)[1] + 3, (cube(nearer), cube(right))  # nor is it a mirror's
assert simulator.picture().shape == (256, 256, 3)
simulator.close()
""")
    assert done.returncode == 0, done.stderr
