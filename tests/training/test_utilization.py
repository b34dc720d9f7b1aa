"""Useful operations are those of an update that computes nothing twice."""

import pytest

from ebt_jax.data.mixture import open_mixture
from ebt_jax.flops import peak_flops
from ebt_jax.training.settings import Settings
from ebt_jax.training.utilization import sample_flops, samples_at_peak


def test_what_is_computed_twice_counts_once(tiny_config):
    settings = Settings.from_dict(tiny_config)
    specs = open_mixture(settings.data).specs
    twice = {**tiny_config, "mcmc": {**tiny_config["mcmc"], "gradient": "lean"}, "model": {**tiny_config["model"], "remat": True}}
    flops = sample_flops(Settings.from_dict(twice), specs)
    assert samples_at_peak(settings, specs, "NVIDIA H200", 4) == pytest.approx(4 * 989.5e12 / flops)


@pytest.mark.parametrize(
    ("kind", "tflops"),
    [("NVIDIA H100 80GB HBM3", 989.5), ("NVIDIA A100-SXM4-40GB", 312), ("TPU v5 lite", 197), ("TPU v5p", 459), ("TPU v6 lite", 918)],
)
def test_published_peaks(kind, tflops):
    assert peak_flops(kind) == pytest.approx(1e12 * tflops)


def test_a_cpu_has_no_published_peak():
    assert peak_flops("cpu") is None
