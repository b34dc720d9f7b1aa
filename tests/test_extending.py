"""What docs/extending.md tells people to add works as it stands there."""

import importlib.util
import pathlib
import re
import types

import bimodal
import jax
import numpy as np
import point
import pytest
from formulas import formula_policy, suite_specs

from ebt_jax import methods, simulators
from ebt_jax.evaluation import rollouts
from ebt_jax.evaluation.messages import Outcome, Plan, Start
from ebt_jax.evaluation.worker import Seat
from ebt_jax.mcmc import MCMC
from ebt_jax.simulators.demonstrate import demonstrate
from ebt_jax.simulators.disturbance import UNDISTURBED
from ebt_jax.simulators.rendering import OFF

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "extending.md").read_text()


def entry(table: str) -> tuple[str, str]:
    """The name and the value, as code, of the entry that the page puts into this table."""
    found = re.search(rf"in `{table}` of [^:]*: `\"(\w+)\": (.*?)`\.", PAGE)
    assert found
    return found[1], found[2]


@pytest.fixture
def method(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the page's method, which is in the table."""
    path = tmp_path / "denoising.py"
    path.write_text(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0])
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    name, value = entry("METHODS")
    monkeypatch.setitem(methods.METHODS, name, eval(value, vars(module)))
    return name


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the page's suite, which is in the table, its module where the tests have it."""
    name, value = entry("SUITES")
    adapter = eval(value, {"Adapter": simulators.Adapter})
    assert adapter.module == f"ebt_jax.simulators.{point.__name__}"
    monkeypatch.setitem(simulators.SUITES, name, adapter._replace(module=point.__name__))
    return name


def test_the_objective_learns_to_pass_on_either_side(method: str) -> None:
    """After 500 updates four steps end .036 from a mode (median), and 19 % of the chunks between the modes; the squared error's: 99 %."""
    made = methods.make_method({"name": method}, MCMC(num_steps=4), bimodal.mlp_energy())
    scores = bimodal.score(made, bimodal.train(made, 500), made.sample_steps)
    assert scores.median < 0.06
    assert scores.collapsed < 30
    assert scores.balance > 0.8


def test_the_objective_is_known_by_its_name(method: str) -> None:
    assert methods.settings_table()[method]["spread"] == 1.5
    assert methods.unread_mcmc({"name": method}, MCMC(step_size=0.5, noise_start=0.1)) == ["mcmc.noise_start"]
    with pytest.raises(ValueError, match="method.spread must be positive, got 0"):
        methods.make_method({"name": method, "spread": 0.0}, MCMC(), bimodal.mlp_energy())


def test_the_suite_is_one_that_collect_and_evaluate_take(suite: str) -> None:
    assert suite in simulators.with_experts()
    (task,) = simulators.tasks(suite)
    simulator = simulators.make(suite, task)
    first, _ = simulator.reset(seed=7)
    assert simulator.observation_space.contains(first)
    shown = demonstrate(simulator, 3, noise=0.1)
    assert shown is not None
    np.testing.assert_array_equal(simulator.reset(seed=7)[0]["proprio"], first["proprio"])
    seat = Seat(suite, ())
    begun = seat.answer(Start(task, 100_000, 1, UNDISTURBED))
    done = seat.answer(Plan(np.zeros((60, 2), np.float32), 2))
    assert isinstance(begun, Outcome)
    assert isinstance(done, Outcome)
    assert (done.done, done.success, len(done.rewards), len(done.pictures)) == (True, False, 60, 60)
    assert begun.pictures[0].std() > 5


def test_a_suite_that_mujoco_does_not_draw_never_asks_for_its_backend(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = types.SimpleNamespace(times=0)

    def find_backend() -> str:
        asked.times += 1
        return "egl"

    monkeypatch.setattr(rollouts, "find_backend", find_backend)
    found = [
        rollouts.renderer(
            formula_policy(suite_specs(name), lambda proprio, keys, h: jax.numpy.zeros((len(proprio), h, 2))), name, filmed=True
        )
        for name in (suite, "pusht", "metaworld")
    ]
    assert found == [OFF, OFF, "egl"]
    assert asked.times == 1
