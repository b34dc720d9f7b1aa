"""Policies at initialisation: real networks with random parameters, for tests of everything but what is learnt."""

import jax
import numpy as np

from ebt_jax.loading import parameters_sha256
from ebt_jax.mcmc import MCMC
from ebt_jax.methods import make_method, method_settings
from ebt_jax.models import make_model
from ebt_jax.models.config import model_variant
from ebt_jax.normalize import Normalizer, Statistics, VectorStatistics
from ebt_jax.policy import Identity, Policy, empty_batch
from ebt_jax.specs import ActionDimension, ActionSpec, CameraSpec, Dimension, LanguageSpec, ObservationSpec, Specs

SPECS = Specs(
    ObservationSpec((), (Dimension("x", "m"), Dimension("y", "m")), LanguageSpec("tokens", 3, 16), 2),
    ActionSpec(
        (ActionDimension("x", "eef_delta", "m", -0.05, 0.05), ActionDimension("grip", "gripper", "", 0.0, 1.0)),
        "base",
        6,
        control_rate_hz=10.0,
    ),
)
SEEING = Specs(
    ObservationSpec((CameraSpec("primary", 32, 32),), *(getattr(SPECS.observation, n) for n in ("proprio", "language", "horizon"))),
    SPECS.action,
)


def untrained_policy(name="ebt", specs=SPECS, mcmc=None, **settings):
    """Seed 0, width 16, one layer each; energies scaled up so that a step of size 1 moves a chunk by about its own size."""
    mcmc = mcmc or MCMC(num_steps=2)
    table = {"name": name, **settings}
    config = model_variant("debug", width=16, encoder_layers=1, decoder_layers=1, heads=2, unroll=1)
    method = make_method(table, mcmc, make_model(config, specs, method_settings(table).head))
    params = method.init(jax.random.key(0), empty_batch(specs))
    params = jax.tree.map(lambda leaf: 2 * leaf if leaf.ndim > 1 else leaf, params)
    rows = np.random.default_rng(0).normal(size=(50, 2))
    return Policy(
        method=method,
        params=params,
        specs=specs,
        statistics=Statistics(VectorStatistics.of(rows), VectorStatistics.of(rows), 50, 1),
        action_normalizer=Normalizer(np.array([0.0, 0.5], np.float32), np.array([0.05, 0.5], np.float32)),
        proprio_normalizer=Normalizer(np.zeros(2, np.float32), np.ones(2, np.float32)),
        sample_steps=method.sample_steps,
        execution_horizon=2,
        identity=Identity("untrained", parameters_sha256(params), 0, name),
    )


def observe(specs, batch_size, seed=0):
    """Something to look at."""
    draw, example = np.random.default_rng(seed), empty_batch(specs, batch_size).observation
    return example._replace(
        images={name: draw.integers(0, 256, frames.shape, np.uint8) for name, frames in example.images.items()},
        proprio=draw.normal(size=example.proprio.shape).astype(np.float32),
        language=draw.integers(0, 16, example.language.shape).astype(np.int32),
    )


def keys(policy, batch_size):
    return policy.sample_keys(0, np.arange(batch_size), np.zeros(batch_size, np.int64))
