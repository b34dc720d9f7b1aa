"""The loops that docs/inference.md and docs/robot.md tell people to paste."""

import dataclasses
import json
import math
import pathlib
import re
import subprocess
import sys

import numpy as np
from quadratic import quadratic_policy

import ebt_jax
from ebt_jax.artifact import export_policy
from ebt_jax.data.mixture import equal_specs, with_tokenizer
from ebt_jax.data.settings import DataSettings
from ebt_jax.data.spec import DatasetSpec
from ebt_jax.data.standardize import join
from ebt_jax.serving.schema import Schema

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "inference.md"
WALK = PAGE.with_name("robot.md")


class Robot:
    """Integrates displacements, and remembers what it was told."""

    def __init__(self):
        self.position, self.executed = np.array([0.4, -0.3], np.float32), []

    def observe(self):
        return {"images": {}, "proprio": self.position.copy(), "language": "go home"}

    def act(self, action):
        assert action.shape == (2,)
        self.executed.append(action)
        self.position = self.position - action
        return self.observe()


def test_the_loop_runs_as_it_stands_and_moves_the_robot(tmp_path, monkeypatch):
    section = PAGE.read_text().partition("## A robot loop")[2]
    code = re.search(r"```python\n(.*?)```", section, flags=re.DOTALL).group(1)
    assert len(code.strip().splitlines()) <= 36, "thirty lines and their gaps"
    artifact = export_policy(quadratic_policy(), tmp_path / "artifact", ["cpu"])
    real = ebt_jax.load
    monkeypatch.setattr("ebt_jax.loading.load", lambda path: {"runs/sample/artifact": lambda: real(artifact)}[path]())
    robot = Robot()
    exec(compile(code, str(PAGE), "exec"), {"robot": robot})
    assert len(robot.executed) == 400
    assert np.abs(robot.position).max() < 0.05, "each action is a tenth of the way home"
    assert np.isfinite(robot.executed).all()


JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")


class Arm:
    """LeRobot's follower: degrees, a gripper from 0 to 100, and it is where it was told to go."""

    def __init__(self):
        self.position, self.told = dict(zip([f"{joint}.pos" for joint in JOINTS], (90.0, -45.0, 30.0, 0.0, 180.0, 25.0), strict=True)), []

    def get_observation(self):
        return {**self.position, "top": np.full((48, 64, 3), 7, np.uint8), "wrist": np.full((32, 32, 3), 9, np.uint8)}

    def send_action(self, action):
        self.told.append(action)
        self.position = action


def test_the_walk_to_an_arm_speaks_the_units_of_its_spec_and_the_servers_words(tmp_path, monkeypatch):
    """What a robot measures reaches the policy as the spec on the page converts recordings; answers come back in the robot's own units."""
    page = WALK.read_text()
    spec = DatasetSpec.from_json(re.search(r"```json\n(.*?)```", page, flags=re.DOTALL).group(1))
    arm, asked = Arm(), []
    recorded = np.array([list(arm.position.values())])
    action, state = join(spec, {"action": recorded, "observation/state": recorded})
    np.testing.assert_allclose(state[0], [math.pi / 2, -math.pi / 4, math.pi / 6, 0, math.pi, 0.25], atol=1e-6)
    np.testing.assert_array_equal(action, state)

    settings = with_tokenizer(DataSettings("data", spec.name, 2, 16, 32, ("primary", "wrist")))
    specs = equal_specs([dataclasses.replace(spec, language_key="language_instruction", control_rate_hz=3000.0)], settings)
    schema = Schema(specs, (2,), 0)

    class Client:
        def __init__(self, url, token):
            assert token == "secret"
            self.metadata = {"specs": json.loads(specs.to_json()), "execution_horizon": 8}

        def __enter__(self):
            return self

        def __exit__(self, *raised):
            pass

        def infer(self, message):
            asked.append(schema.parse(message, 0, 0, 0).observation)
            return {"actions": np.full((16, 6), [0.5, 0, 0, 0, -0.5, 1.0], np.float32)}

    monkeypatch.setattr("ebt_jax.serving.client.Client", Client)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("secret\n")
    code = re.search(r"```python\n(.*?)```", page, flags=re.DOTALL).group(1)
    exec(compile(code, str(WALK), "exec"), {"robot": arm})

    np.testing.assert_allclose(asked[0].proprio, np.stack([state, state], 1), atol=1e-6)
    assert [one.timestep_mask.tolist() for one in asked[:2]] == [[[False, True]], [[True, True]]]
    assert {name: frames.shape for name, frames in asked[0].images.items()} == dict.fromkeys(("primary", "wrist"), (1, 2, 32, 32, 3))
    assert asked[0].language_mask.sum() == 4, "pick up the cube"
    assert len(arm.told) == 8 * len(asked)
    np.testing.assert_allclose(list(arm.position.values()), [math.degrees(0.5), 0, 0, 0, -math.degrees(0.5), 100], rtol=1e-5)


def test_the_arms_computer_needs_what_the_page_installs_there():
    (line,) = re.findall(r"^pip install ([a-z ]+);", WALK.read_text(), flags=re.MULTILINE)
    script = "import sys, ebt_jax.serving.client; print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    before = subprocess.run(
        [sys.executable, "-c", script.replace(", ebt_jax.serving.client", "")], capture_output=True, text=True, check=True
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found = set(done.stdout.split()) - set(before.stdout.split()) - {"ebt_jax"}
    assert {name for name in found if not name.startswith("_")} - {"cython_runtime"} == set(line.split())
