"""What an experiment's method is told of the data: how far normalised actions reach."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebt_jax.loading import load
from ebt_jax.methods.diffusion import signal_levels
from ebt_jax.normalize import Statistics, VectorStatistics
from ebt_jax.policy import empty_batch
from ebt_jax.specs import ActionDimension, ActionSpec, Dimension, LanguageSpec, ObservationSpec, Specs
from ebt_jax.training.loop import train
from ebt_jax.training.settings import Settings
from ebt_jax.types import EnergyModel, VectorModel

FARTHEST = 8.0
SPECS = Specs(
    ObservationSpec((), (Dimension("x", "m"),), LanguageSpec(), 1),
    ActionSpec((ActionDimension("x", "eef_delta", "m"), ActionDimension("gripper", "gripper", "", 0.0, 1.0)), "base", 4, 10.0),
)


def statistics(farthest=5):
    """x of mean 1 and deviation .5, demonstrated from -1 to 5: eight deviations away."""
    values = {"mean": [1, 0.2], "std": [0.5, 0.1], "min": [-1, 0], "max": [farthest, 1], "q01": [0, 0], "q99": [2, 1]}
    seen = VectorStatistics(**{name: np.array(pair, float) for name, pair in values.items()})
    return Statistics(seen, seen, 100, 2)


SEEN = (statistics(),)


def perfect(where, head):
    """The best network for demonstrations that are all `where`."""
    table = jnp.asarray(signal_levels(100), jnp.float32)

    def predict(params, context, actions, time):
        signal = table[jnp.round(time * 100).astype(int)][:, None, None]
        return (actions - jnp.sqrt(signal) * where) / jnp.sqrt(1 - signal)

    def energy(params, context, actions):
        return 1e3 * jnp.sum(((actions - where) / where) ** 2, axis=(1, 2))

    if head == "energy":
        return EnergyModel(lambda *_: None, lambda *_: None, energy, (4, 2))
    return VectorModel(lambda *_: None, lambda *_: None, predict, (4, 2))


def sampled(tiny_config, monkeypatch, settings, normalization, where, told=SEEN):
    """Answers of a perfect network after training on one dataset, or on several, the first of the largest weight."""
    monkeypatch.setattr("ebt_jax.training.settings.make_model", lambda config, specs, head: perfect(where, head))
    data = {**tiny_config["data"], "normalization": normalization}
    settings = Settings.from_dict({**tiny_config, "data": data, "method": settings})
    dimensions = [dataclasses.asdict(dimension) for dimension in SPECS.action.dimensions]
    manifest = json.dumps([{"statistics": json.loads(one.to_json()), "spec": {"action": dimensions}} for one in told])
    method = settings.make_method(SPECS, told[0] if told else None, manifest)
    keys = jax.random.split(jax.random.key(0), 4)
    return np.asarray(jax.jit(method.sample, static_argnums=3)(None, None, keys, method.sample_steps).actions)


@pytest.mark.parametrize("name", ["diffusion", "contrastive"])
@pytest.mark.parametrize(
    ("normalization", "told", "where"),
    [("mean_std", SEEN, FARTHEST), ("quantile", SEEN, 4.0), ("mean_std", (), 5.0)],
)
def test_what_was_demonstrated_can_be_answered(tiny_config, monkeypatch, name, normalization, told, where):
    """Demonstrations at the farthest normalised number: -1 to 5 is 8 deviations from 1, or 4 half-widths of 0 to 2; 5 where unknown."""
    answers = sampled(tiny_config, monkeypatch, {"name": name}, normalization, where, told)
    np.testing.assert_allclose(answers, where, rtol=0.15)


@pytest.mark.parametrize(("settings", "wall"), [({"name": "diffusion", "clip": 0.5}, 0.5), ({"name": "contrastive", "bound": 0.5}, 0.5)])
def test_bounds_are_measured_in_the_reach(tiny_config, monkeypatch, settings, wall):
    answers = sampled(tiny_config, monkeypatch, settings, "mean_std", FARTHEST)
    assert answers.max() == wall * FARTHEST
    assert sampled(tiny_config, monkeypatch, settings, "min_max", FARTHEST).max() == wall


@pytest.mark.parametrize(
    ("settings", "farthest", "reach"),
    [
        ({"name": "diffusion", "clip": 0.5}, (2.5, 4), 3.0),
        ({"name": "diffusion", "clip": 0.5}, (2.5, 121), 5.0),
        ({"name": "contrastive", "bound": 0.5}, (121,), 5.0),
    ],
)
def test_quantile_reaches_as_far_as_any_dataset_and_no_farther_than_5(tiny_config, monkeypatch, settings, farthest, reach):
    """x of 1 % and 99 % at 0 and 2, whose farthest number is an outlier or is not."""
    answers = sampled(tiny_config, monkeypatch, settings, "quantile", FARTHEST, [statistics(far) for far in farthest])
    assert answers.max() == 0.5 * reach


@pytest.mark.slow
def test_a_loaded_policy_reaches_as_far(tiny_config, tmp_path):
    """One step from pure noise is clipped, and shows where."""
    data = {**tiny_config["data"], "normalization": "mean_std"}
    config = {**tiny_config, "num_steps": 1, "eval_interval": 0, "data": data, "method": {"name": "diffusion", "num_levels": 4}}
    train(config, tmp_path)
    policy = load(tmp_path)
    seen, (shift, scale, _) = policy.statistics.action, policy.action_normalizer
    farthest = max(np.abs((seen.min - shift) / scale).max(), np.abs((seen.max - shift) / scale).max())
    context = policy.method.encode(policy.params, empty_batch(policy.specs, 8).observation)
    answers = policy.method.sample(policy.params, context, jax.random.split(jax.random.key(0), 8), 1).actions
    assert farthest > 2
    np.testing.assert_allclose(np.abs(answers).max(), farthest, rtol=1e-6)
