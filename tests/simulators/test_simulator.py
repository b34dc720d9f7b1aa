"""What holds for every suite."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from ebt_jax import simulators
from ebt_jax.simulators.simulator import demonstration_state, evaluation_state


@pytest.mark.parametrize("suite", simulators.SUITES)
def test_observations_and_actions_are_what_the_spaces_say(suite: str) -> None:
    simulator = simulators.make(suite, simulators.tasks(suite)[0])
    embodiment = simulators.embodiment(suite)
    observation, _ = simulator.reset(seed=3)
    assert simulator.observation_space.contains(observation)
    assert len(observation["proprio"]) == len(embodiment.proprio)
    simulator.action_space.seed(0)
    observation, reward, terminated, truncated, info = simulator.step(simulator.action_space.sample())
    assert simulator.observation_space.contains(observation)
    assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
    assert info["success"] == terminated
    picture = simulator.picture()
    assert picture.dtype == np.uint8
    assert picture.std() > 5
    simulator.close()


@pytest.mark.parametrize("bad", [np.zeros(7, np.float32), np.full(4, np.nan, np.float32)])
def test_an_action_that_is_none_is_refused_by_name(bad: np.ndarray) -> None:
    simulator = simulators.make("metaworld", "reach-v3")
    simulator.reset(seed=0)
    with pytest.raises(ValueError, match=r"4 finite numbers \['hand_x', 'hand_y', 'hand_z', 'gripper'\]"):
        simulator.step(bad)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match="metaworld, obstacle, pusht, robosuite"):
        simulators.make("atari", "pong")
    with pytest.raises(ValueError, match="pick-place-v3"):
        simulators.make("metaworld", "pick-place-v2")
    with pytest.raises(ValueError, match=r"cameras must be among \['primary'\]"):
        simulators.make("pusht", "pusht", ("wrist",))


def test_suites_with_experts_are_those_that_collect_offers() -> None:
    assert simulators.with_experts() == ("metaworld", "obstacle", "robosuite")
    with pytest.raises(NotImplementedError, match="PushT has no scripted expert"):
        simulators.make("pusht", "pusht").expert_action()


def test_demonstrations_and_evaluations_never_start_from_the_same_state() -> None:
    shown = {demonstration_state(seed, attempt) for seed in range(3) for attempt in range(0, 100_000, 7)}
    shown |= {demonstration_state(seed, 99_999) for seed in range(3)}
    tested = {evaluation_state(seed, episode) for seed in range(3) for episode in range(2_000)}
    assert not shown & tested
    assert evaluation_state(0, 7) == 100_007  # published PushT results
    with pytest.raises(ValueError, match="another seed"):
        demonstration_state(0, 100_000)
    with pytest.raises(ValueError, match=r"got 100000\. Evaluation with seed 0 starts from the published states 100000, 100001"):
        evaluation_state(100_000, 0)


WITHOUT = "import sys; sys.modules.update(dict.fromkeys(['gymnasium', 'metaworld', 'mujoco', 'robosuite', 'gym_pusht'])); "
"""As an install without the extras is."""


def test_without_a_simulator_the_tables_are_there_and_the_remedy_is_said() -> None:
    script = WITHOUT + (
        "from ebt_jax import simulators; import ebt_jax.evaluation.open_loop, ebt_jax.evaluation.rollouts\n"
        "for suite in simulators.SUITES:\n"
        "  print(len(simulators.tasks(suite)), simulators.embodiment(suite).max_steps)\n"
        "  try: simulators.make(suite, simulators.tasks(suite)[0])\n"
        "  except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[::2] == ["50 500", "1 500", "1 300", "3 400"]
    assert lines[1] == "suite metaworld needs gymnasium and metaworld, got no such package. Try pip install 'ebt_jax[metaworld]'."
    assert ["ebt_jax[metaworld]" in line for line in lines[1::2]] == [True, True, False, False]
    assert all("pip install 'ebt_jax[sim]'" in line for line in lines[5::2])


@pytest.mark.parametrize(
    ("command", "words", "code", "said"),
    [
        ("evaluate", ("--help",), 0, ""),
        ("collect", ("--help",), 0, ""),
        ("evaluate", ("--merge",), 1, "must hold the parts of one evaluation, got none"),
        ("evaluate", ("--policy=nothing", "--suite=robosuite"), 1, "pip install 'ebt_jax[sim]'"),
        ("collect", ("--suite=metaworld", "--tasks=reach-v3"), 1, "pip install 'ebt_jax[metaworld]'"),
    ],
)
def test_commands_start_without_a_simulator(command: str, words: tuple[str, ...], code: int, said: str, tmp_path: pathlib.Path) -> None:
    script = WITHOUT + f"from ebt_jax import cli, {command}; cli.run({command}.main, {command}.__doc__)"
    done = subprocess.run([sys.executable, "-c", script, *words, f"--output={tmp_path}"], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
