"""The loop that docs/inference.md tells people to paste."""

import pathlib
import re

import numpy as np
from quadratic import quadratic_policy

import ebt_jax
from ebt_jax.artifact import export_policy

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "inference.md"


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
