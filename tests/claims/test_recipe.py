"""Equal compute: what an update costs is counted, and a budget buys as many as fit."""

import jax
import pytest
from made_up import small, write_settings

from benchmarks.claims.cells import Cell
from benchmarks.claims.recipe import affordable, merge, recipe, scheduled, stages, update_flops
from benchmarks.claims.settings import read_settings
from ebt_jax.data.mixture import open_mixture
from ebt_jax.training.settings import Settings

FLOW = Cell("development", "small", "pusht", "flow", 2, 0)


def sample_settings(tiny_config, **changes):
    return Settings.from_dict({**tiny_config, **changes})


def test_a_budget_buys_what_fits():
    assert affordable(100.0, 33) == 3
    assert affordable(99.0, 33) == 3
    assert affordable(98.9, 33) == 2
    with pytest.raises(ValueError, match="budget must buy at least 1 update of 33 operations, got 32"):
        affordable(32.0, 33)


def test_core_minutes_become_operations(tmp_path):
    settings = write_settings(tmp_path, lambda tree: (small(tree), tree["scales"]["small"].update(core_minute=3e11)))
    assert recipe(settings, FLOW).flops == 2 * 3e11
    assert recipe(settings, FLOW._replace(budget=6)).flops == 3 * recipe(settings, FLOW).flops


def test_a_pretraining_is_paid_from_the_same_budget():
    settings = read_settings()
    what = recipe(settings, FLOW._replace(contestant="equilibrium-energy-score"))
    first, last = stages(what, "there")
    assert first.flops + last.flops == what.flops
    assert (first.config["method"]["name"], last.config["method"]["name"]) == ("equilibrium", "ebt")
    assert "init_from" not in first.config
    assert last.config["init_from"] == "there"
    plain = recipe(settings, FLOW)
    assert stages(plain, "there") == [plain]


def test_another_pretraining_is_another_trial(tmp_path):
    cell = FLOW._replace(contestant="equilibrium-energy-score")
    one, other, longer = (
        write_settings(tmp_path, lambda tree, change=change: tree["contestants"][cell.contestant]["pretraining"].update(change))
        for change in ({}, {"config": {"method": {"name": "equilibrium", "cutoff": 0.9}}}, {"share": 0.75})
    )
    assert len({recipe(settings, cell).trial for settings in (one, other, longer)}) == 3
    assert recipe(one, cell).trial == recipe(one, cell._replace(seed=1)).trial


@pytest.mark.slow
def test_an_update_is_counted_at_its_batch_size_with_everything_in_it(tiny_config):
    """Twice the batch, twice the operations; more starts or steps cost more; the optimiser and the learning rate nothing."""
    base = sample_settings(tiny_config)
    specs = open_mixture(base.data).specs
    cost = update_flops(base, specs)
    assert update_flops(sample_settings(tiny_config, batch_size=32), specs) == 2 * cost
    one_step = {**tiny_config["mcmc"], "num_steps": 1}
    assert update_flops(sample_settings(tiny_config, mcmc=one_step), specs) < cost
    deeper = {**tiny_config["model"], "encoder_layers": 3}
    assert update_flops(sample_settings(tiny_config, model=deeper), specs) > cost, "the observation encoder counts"
    regression = update_flops(sample_settings(tiny_config, method={"name": "regression"}), specs)
    assert cost > regression


def test_what_is_counted_is_what_xla_runs(tiny_config):
    """Regression: no loops, whose bodies XLA counts once. Its total also holds elementwise work, so it may only be larger, and little."""
    config = {**tiny_config, "method": {"name": "regression"}, "batch_size": 8}
    config["model"] = {**config["model"], "width": 128, "heads": 2}
    settings = sample_settings(config)
    mixture = open_mixture(settings.data)
    method = settings.make_method(mixture.specs)
    batch = mixture.example_batch(8)
    params = jax.eval_shape(method.init, jax.random.key(0), batch)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 8))
    compiled = jax.jit(jax.value_and_grad(method.loss, has_aux=True)).lower(params, batch, keys).compile()
    counted = update_flops(settings, mixture.specs)
    assert 0.8 < compiled.cost_analysis()["flops"] / counted < 1.2


def test_every_budget_has_its_own_whole_schedule(tmp_path):
    what = recipe(write_settings(tmp_path, small), FLOW)
    short, long = (scheduled(what.config, updates, what.warmup, "data") for updates in (100, 1000))
    assert (short["num_steps"], short["optimizer"]["warmup_steps"]) == (100, 5)
    assert (long["num_steps"], long["optimizer"]["warmup_steps"]) == (1000, 50)
    assert short["save_interval"] == 25
    assert Settings.from_dict(scheduled(what.config, 1, what.warmup, "data")).optimizer.warmup_steps == 0


def test_the_trial_is_the_same_for_all_seeds_and_another_for_another_try():
    settings = read_settings()
    trial = recipe(settings, FLOW).trial
    assert recipe(settings, FLOW._replace(seed=2)).trial == trial
    swept = recipe(settings, FLOW._replace(contestant="equilibrium"), sweep=True)
    assert "2, method.travel=1.0" in swept.samplers
    assert swept.trial == recipe(settings, FLOW._replace(contestant="equilibrium")).trial
    others = {
        recipe(settings, FLOW, {"optimizer.learning_rate": 3e-4}).trial,
        recipe(settings, FLOW._replace(budget=6)).trial,
        recipe(settings, FLOW._replace(contestant="regression")).trial,
        recipe(settings, FLOW._replace(phase="confirmation")).trial,
    }
    assert len(others | {trial}) == 5


def test_seeds_and_data_are_the_cells():
    what = recipe(read_settings(), Cell("confirmation", "small", "hammer", "flow", 4, 3))
    assert what.config["seed"] == 1003
    assert what.config["evaluation"] == {"suite": "metaworld", "tasks": ["hammer-v3"], "episodes": 200, "seed": 3003}
    assert what.config["data"]["mixture"] == "metaworld_hammer_v3_10"
    assert what.episodes == 200


def test_confirmation_takes_no_changes_and_development_only_known_ones():
    settings = read_settings()
    with pytest.raises(ValueError, match="confirmation must run from the committed settings alone"):
        recipe(settings, FLOW._replace(phase="confirmation"), {"batch_size": 1})
    with pytest.raises(ValueError, match="changes must be of a table of the configuration, got 'optimiser.b2'"):
        recipe(settings, FLOW, {"optimiser.b2": 0.9})
    assert recipe(settings, FLOW, {"optimizer.b2": 0.9}).config["optimizer"]["b2"] == 0.9


def test_tables_merge_and_methods_replace():
    base = {"a": {"x": 1, "y": 2}, "method": {"name": "one", "z": 3}}
    assert merge(base, {"a": {"y": 5}, "method": {"name": "two"}}) == {"a": {"x": 1, "y": 5}, "method": {"name": "two"}}
    assert base["a"] == {"x": 1, "y": 2}
