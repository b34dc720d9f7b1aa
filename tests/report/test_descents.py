"""What is drawn of a policy is what it does: its own descents, and the energy of the observation that is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebt_jax.mcmc import MCMC
from ebt_jax.methods.descent import descend
from ebt_jax.normalize import Normalizer, Statistics, VectorStatistics
from ebt_jax.policy import Identity, Policy, empty_batch
from ebt_jax.report import descents
from ebt_jax.specs import ActionDimension, ActionSpec, Dimension, LanguageSpec, ObservationSpec, Specs
from ebt_jax.types import EnergyModel, Method

SPECS = Specs(
    ObservationSpec((), (Dimension("x", "m"),), LanguageSpec(), horizon=1),
    ActionSpec((ActionDimension("x", "joint_position", "rad"),), "base", horizon=3),
)


@pytest.fixture
def policy():
    """E(o, a) = |a - o|^2 / 2: the demonstration is the observed number, and steps of 1/2 halve the distance to it."""
    model = EnergyModel(
        init=lambda key, batch: {},
        encode=lambda params, observation: observation.proprio[:, 0],
        energy=lambda params, context, actions: 0.5 * jnp.sum((actions - context[:, None]) ** 2, axis=(1, 2)),
        action_shape=(3, 1),
    )

    def sample(params, context, keys, num_steps):
        return descend(model, params, context, keys, MCMC(num_steps=2, step_size=0.5), num_steps)

    method = Method(model.init, lambda *_: None, sample, model.encode, model.energy)
    flat = VectorStatistics(*(np.full(1, value) for value in (0.0, 1.0, -1.0, 1.0, -1.0, 1.0)))
    same = Normalizer(np.zeros(1, np.float32), np.ones(1, np.float32))
    return Policy(method, {}, SPECS, Statistics(flat, flat, 1, 1), same, same, 4, 1, Identity("", "", 0, "ebt"))


def test_a_policy_is_drawn_as_it_acts(policy, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(descents, "draw_descent", lambda workdir, *arguments: given.update(arguments=arguments))
    batch = empty_batch(SPECS, 5)
    batch.observation.proprio[:, 0, 0] = np.arange(5)
    batch.actions[:] = np.arange(5)[:, None, None]
    batch.action_mask[:2, -1] = False
    descents.draw_policy(tmp_path, policy, batch)
    sample, demonstrations, mask, energy, row = given["arguments"]
    gap = sample.trace_actions - demonstrations
    np.testing.assert_allclose(gap, 0.5 ** np.arange(5)[:, None, None, None] * gap[:1], atol=1e-5)
    assert row == 2  # the first whose chunk is real throughout
    chunks = jax.random.normal(jax.random.key(0), (7, 3, 1))
    np.testing.assert_allclose(energy(chunks), 0.5 * np.sum((np.asarray(chunks) - 2) ** 2, axis=(1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(mask, batch.action_mask)


def test_figures_lie_where_the_report_looks_for_them(policy, tmp_path):
    descents.draw_policy(tmp_path, policy, empty_batch(SPECS, 4))
    for name in (descents.DESCENT, descents.LANDSCAPE):
        assert (tmp_path / name).read_text().startswith("<svg")
