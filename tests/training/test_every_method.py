"""Every method through the same doors: trained, validated, saved, loaded, evaluated, drawn, reported."""

import numpy as np
import pytest

import ebt_jax
from ebt_jax import methods
from ebt_jax.data.loader import make_loader
from ebt_jax.data.mixture import open_mixture
from ebt_jax.evaluation.open_loop import open_loop
from ebt_jax.policy import empty_batch
from ebt_jax.report.descents import DESCENT, LANDSCAPE, draw_policy
from ebt_jax.report.run import write_run_report
from ebt_jax.training.loop import train
from ebt_jax.training.settings import Settings

CONTRASTIVE = {"name": "contrastive", "num_uniform": 2, "num_langevin": 1, "langevin_steps": 2}
METHODS = [
    {"name": "diffusion", "num_levels": 4},
    {"name": "ebt", "learn_step_size": True},
    {"name": "equilibrium"},
    {"name": "equilibrium", "head": "vector"},
    CONTRASTIVE,
    {**CONTRASTIVE, "inference": "derivative_free", "num_candidates": 8},
    {"name": "flow"},
    {"name": "regression"},
    {"name": "regression", "objective": "energy_score", "num_starts": 2},
]


def test_no_method_is_left_out():
    assert {settings["name"] for settings in METHODS} == set(methods.METHODS)


@pytest.mark.slow
@pytest.mark.parametrize("settings", METHODS, ids=lambda settings: "-".join(str(v) for v in settings.values() if isinstance(v, str)))
def test_from_data_to_report(settings, tiny_config, tmp_path):
    config = {**tiny_config, "method": settings, "num_steps": 2, "batch_size": 8, "eval_interval": 2, "eval_batches": 1}
    train(config, tmp_path)
    policy = ebt_jax.load(tmp_path)
    assert policy.identity.method == settings["name"]
    assert policy.sample_steps == policy.method.sample_steps
    mixture = open_mixture(Settings.from_dict(config).data)
    held_out = next(iter(make_loader(mixture, "validation", batch_size=8, seed=0)))
    draw_policy(tmp_path, policy, held_out)
    page = write_run_report(tmp_path).read_text()
    has_energy = policy.method.energy is not None
    assert has_energy == (methods.method_settings(settings).head == "energy")
    assert (tmp_path / DESCENT).exists()
    assert (tmp_path / LANDSCAPE).exists() == has_energy == ("Minimising the energy" in page) == ("no energy" not in page)
    measured = open_loop(policy, mixture, "validation", 1, seed=0)
    assert np.isfinite(measured["mse"])
    observation = empty_batch(policy.specs, 2).observation
    output = policy.sample_actions(observation, policy.sample_keys(0, np.arange(2), np.zeros(2, int)))
    assert output.trace_energy.shape == (policy.sample_steps, 2)
    if has_energy:
        assert np.isfinite(policy.energy(observation, output.actions)).all()
        return
    assert np.isnan(output.energy).all()
    assert np.isnan(output.trace_energy).all()
    with pytest.raises(ValueError, match=f"energy must be asked of a policy that has an energy, got method '{settings['name']}' without"):
        policy.energy(observation, output.actions)
