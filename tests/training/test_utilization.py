"""Useful operations are those of an update that computes nothing twice."""

import jax
import pytest

from ebt_jax.data.mixture import open_mixture
from ebt_jax.flops import count_flops, peak_flops
from ebt_jax.models import make_model
from ebt_jax.policy import empty_batch
from ebt_jax.training.settings import Settings
from ebt_jax.training.utilization import sample_flops, samples_at_peak


def test_what_is_computed_twice_counts_once(tiny_config):
    settings = Settings.from_dict(tiny_config)
    specs = open_mixture(settings.data).specs
    twice = {**tiny_config, "mcmc": {**tiny_config["mcmc"], "gradient": "lean"}, "model": {**tiny_config["model"], "remat": True}}
    flops = sample_flops(Settings.from_dict(twice), specs)
    assert samples_at_peak(settings, specs, "NVIDIA H200", 4) == pytest.approx(4 * 989.5e12 / flops)


@pytest.mark.slow
def test_a_descent_needs_three_encodings_and_six_energies_a_step(tiny_config):
    """M = 2 descents of K = 2 steps; what is frozen needs no gradient, so an update needs less."""
    settings = Settings.from_dict(tiny_config)
    specs = open_mixture(settings.data).specs
    model, batch = make_model(settings.model, specs, "energy"), empty_batch(specs)
    params = jax.eval_shape(model.init, jax.random.key(0), batch)
    context = jax.eval_shape(model.encode, params, batch.observation)
    encode, energy = count_flops(model.encode, params, batch.observation), count_flops(model.energy, params, context, batch.actions)
    assert sample_flops(settings, specs) == pytest.approx(3 * encode + 6 * 2 * 2 * energy, rel=0.01)
    frozen = {**tiny_config, "optimizer": {**tiny_config["optimizer"], "freeze": ["encoder*", "tokens/*"]}}
    assert sample_flops(Settings.from_dict(frozen), specs) < 0.8 * sample_flops(settings, specs)


def test_a_tie_is_counted_of_as_many_samples_as_it_needs(tiny_config):
    """1 + 3 energies a sample, whose parameters' gradient takes twice the forward pass."""
    plain = Settings.from_dict(tiny_config)
    tied = Settings.from_dict({**tiny_config, "method": {**tiny_config["method"], "tie_weight": 0.1, "tie_negatives": 3}})
    specs = open_mixture(plain.data).specs
    model, batch = make_model(plain.model, specs, "energy"), empty_batch(specs)
    params = jax.eval_shape(model.init, jax.random.key(0), batch)
    context = jax.eval_shape(model.encode, params, batch.observation)
    energy = count_flops(model.energy, params, context, batch.actions)
    assert samples_at_peak(tied, specs, "NVIDIA H100", 1) is not None
    assert sample_flops(tied, specs) - sample_flops(plain, specs) == pytest.approx(3 * 4 * energy, rel=0.1)


@pytest.mark.parametrize(
    ("kind", "tflops"),
    [("NVIDIA H100 80GB HBM3", 989.5), ("NVIDIA A100-SXM4-40GB", 312), ("TPU v5 lite", 197), ("TPU v5p", 459), ("TPU v6 lite", 918)],
)
def test_published_peaks(kind, tflops):
    assert peak_flops(kind) == pytest.approx(1e12 * tflops)


def test_a_cpu_has_no_published_peak():
    assert peak_flops("cpu") is None
