"""Held-out numbers are of the held-out windows: however they are batched."""

import bimodal
import jax
import numpy as np
import pytest

from ebt_jax.mcmc import MCMC
from ebt_jax.methods import make_method, method_settings
from ebt_jax.normalize import Normalizer, Statistics, VectorStatistics
from ebt_jax.sharding import make_mesh
from ebt_jax.specs import ActionDimension, ActionSpec
from ebt_jax.training.validate import make_validate

ROWS = 20
SPEC = ActionSpec((ActionDimension("x", "eef_delta", "m"), ActionDimension("y", "eef_delta", "m")), "base", bimodal.HORIZON, 10.0)
NORMALIZER = Normalizer(np.zeros(2, np.float32), np.full(2, 0.1, np.float32))


def windows():
    """Twenty, some of them near their episode's end."""
    batch = jax.tree.map(np.asarray, bimodal.draw(jax.random.key(0), ROWS))
    real = np.arange(bimodal.HORIZON)[None] < np.array([1, 8, 3, 8])[np.arange(ROWS) % 4][:, None]
    return batch._replace(action_mask=batch.action_mask & real[:, :, None])


def batches(size):
    """In their order; the last batch is filled up with its last row, masked."""
    whole = windows()
    for first in range(0, ROWS, size):
        rows = np.arange(first, first + size)
        batch = jax.tree.map(lambda leaf, rows=rows: leaf[np.minimum(rows, ROWS - 1)], whole)
        yield batch._replace(action_mask=batch.action_mask & (rows < ROWS)[:, None, None])


def validation(name, **settings):
    """batches -> metrics of an untrained method, on one device."""
    chosen = {"name": name, **settings}
    method = make_method(chosen, MCMC(num_steps=2), bimodal.model_for(method_settings(chosen).head))
    rows = np.random.default_rng(0).normal(size=(50, 2))
    statistics = Statistics(VectorStatistics.of(rows), VectorStatistics.of(rows), 50, 1)
    mesh = make_mesh(devices=jax.devices()[:1])
    validate = make_validate(method, method.sample_steps, mesh, SPEC, NORMALIZER, statistics, seed=0)
    params = method.init(jax.random.key(1), windows())
    return lambda batches: validate(params, batches)


@pytest.mark.parametrize("settings", [{"name": "ebt"}, {"name": "flow"}, {"name": "diffusion", "num_levels": 4}], ids=lambda s: s["name"])
def test_no_number_depends_on_the_batch_size_or_on_rows_that_fill_up(settings):
    """Five full batches; one full and one of which 4 rows of 16 are real; one with 12 rows of nothing."""
    validate = validation(**settings)
    expected = validate(batches(4))
    assert expected["validation/loss"] > 0
    for size in (16, 32):
        found = validate(batches(size))
        assert found.keys() == expected.keys()
        np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=2e-5, err_msg=str(size))


def test_a_loss_that_masked_rows_count_in_is_of_full_batches():
    """They compare what cannot be told apart, which is log n; where there is no full batch it is all there is."""
    validate = validation("contrastive", num_uniform=2, num_langevin=1, langevin_steps=2)
    full, *_ = batches(16)
    assert validate(batches(16))["validation/loss"] == validate([full])["validation/loss"]
    assert np.isfinite(validate([list(batches(16))[1]])["validation/loss"])
