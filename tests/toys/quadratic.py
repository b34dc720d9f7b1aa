"""A policy whose descent has a closed form: E = 1/2 |a - center|^2 + 1/2 stiffness |rows' differences|^2, robot units = .1 normalised."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from ebt_jax.mcmc import MCMC
from ebt_jax.methods.ebt import EBT, ebt
from ebt_jax.normalize import Normalizer, Statistics, VectorStatistics
from ebt_jax.policy import Identity, Policy, empty_batch
from ebt_jax.specs import ActionDimension, ActionSpec, Dimension, LanguageSpec, ObservationSpec, Specs
from ebt_jax.types import EnergyModel

H, A = 6, 2
SCALE = 0.1
SPECS = Specs(
    ObservationSpec((), (Dimension("x", "m"), Dimension("y", "m")), LanguageSpec(), 1),
    ActionSpec((ActionDimension("x", "eef_delta", "m", -1.0, 1.0), ActionDimension("y", "eef_delta", "m")), "base", H, 10.0),
)


def quadratic_policy(step_size=0.5, stiffness=0.0, energy=None, min_gradient=0.0):
    """`center` of a row is its newest proprio, the same for the whole chunk; `energy` (context, actions) -> [b] takes E's place."""

    def quadratic(params, context, actions):
        if energy is not None:
            return energy(context, actions)
        differences = actions[:, 1:] - actions[:, :-1]
        square = jnp.sum((actions - params["gain"] * context[:, None]) ** 2, axis=(1, 2))
        return 0.5 * square + 0.5 * stiffness * jnp.sum(differences**2, axis=(1, 2))

    model = EnergyModel(lambda key, batch: {"gain": jnp.ones(())}, lambda params, o: jnp.asarray(o.proprio)[:, -1], quadratic, (H, A))
    rows = np.random.default_rng(0).normal(size=(50, 2))
    return Policy(
        method=ebt(EBT(), MCMC(num_steps=2, step_size=step_size, min_gradient=min_gradient), model),
        params={"gain": jnp.ones(())},
        specs=SPECS,
        statistics=Statistics(VectorStatistics.of(rows), VectorStatistics.of(rows), 50, 1),
        action_normalizer=Normalizer(np.zeros(A, np.float32), np.full(A, SCALE, np.float32)),
        proprio_normalizer=Normalizer(np.zeros(2, np.float32), np.ones(2, np.float32)),
        sample_steps=2,
        execution_horizon=2,
        identity=Identity("quadratic", "0" * 64, 3, "ebt"),
    )


def observe(centers):
    """An observation whose chunks' centers, normalised, are `centers` [b 2]."""
    centers = np.asarray(centers, np.float32)
    return empty_batch(SPECS, len(centers)).observation._replace(proprio=centers[:, None])


def keys(policy, batch_size, seed=0):
    return policy.sample_keys(seed, np.arange(batch_size), np.zeros(batch_size, np.int64))


def without_energy(policy):
    """The same policy of a method that neither descends nor has an energy."""
    return dataclasses.replace(policy, method=policy.method._replace(energy=None, minimize=None))
