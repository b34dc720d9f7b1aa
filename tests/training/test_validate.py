"""Held-out numbers are of the held-out windows, however they are batched, each in the units of its own dataset."""

import bimodal
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebt_jax import sharding
from ebt_jax.data.mixture import Units
from ebt_jax.mcmc import MCMC
from ebt_jax.methods import make_method, method_settings
from ebt_jax.methods.descent import without_energy
from ebt_jax.sharding import make_mesh
from ebt_jax.specs import ActionDimension, ActionSpec
from ebt_jax.training.validate import make_validate
from ebt_jax.types import Method

ROWS = 20
SPEC = ActionSpec((ActionDimension("x", "eef_delta", "m"), ActionDimension("y", "eef_delta", "m")), "base", bimodal.HORIZON, 10.0)
UNITS = Units(np.array([[0.5, -0.5], [0.0, 0.25]], np.float32), np.array([[0.1, 0.2], [10.0, 0.0]], np.float32))
"""Of two datasets, the second of which counts y in another unit than the mixture."""


def windows():
    """Twenty, some of them near their episode's end."""
    batch = jax.tree.map(np.asarray, bimodal.draw(jax.random.key(0), ROWS))
    real = np.arange(bimodal.HORIZON)[None] < np.array([1, 8, 3, 8])[np.arange(ROWS) % 4][:, None]
    return batch._replace(action_mask=batch.action_mask & real[:, :, None])


def batches(size):
    """In their order, of each dataset in turn; the last batch is filled up with its last row, masked."""
    whole = windows()
    for first in range(0, ROWS, size):
        rows = np.arange(first, first + size)
        batch = jax.tree.map(lambda leaf, rows=rows: leaf[np.minimum(rows, ROWS - 1)], whole)
        yield batch._replace(action_mask=batch.action_mask & (rows < ROWS)[:, None, None]), rows % 2


def one_device():
    return make_mesh(devices=jax.devices()[:1])


def validation(name, **settings):
    """batches -> metrics of an untrained method, on one device."""
    chosen = {"name": name, **settings}
    method = make_method(chosen, MCMC(num_steps=2), bimodal.model_for(method_settings(chosen).head))
    validate = make_validate(method, method.sample_steps, one_device(), SPEC, UNITS, seed=0)
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


@pytest.mark.parametrize("settings", [{"name": "ebt"}, {"name": "diffusion", "num_levels": 4}], ids=lambda s: s["name"])
def test_no_number_depends_on_devices_or_slices(settings, monkeypatch):
    """Parameters shared by four devices and gathered; each device's four rows in two slices."""
    expected = validation(**settings)(batches(32))
    monkeypatch.setattr(sharding, "SMALLEST_SHARDED", 1)
    mesh = make_mesh(2, 4)
    method = make_method(settings, MCMC(num_steps=2), bimodal.model_for(method_settings(settings).head))
    params = method.init(jax.random.key(1), windows())
    places = sharding.shardings(params, mesh)
    assert not all(place.is_fully_replicated for place in jax.tree.leaves(places))
    validate = make_validate(method, method.sample_steps, mesh, SPEC, UNITS, seed=0, accumulate_steps=2)
    found = validate(jax.device_put(params, places), batches(32))
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=2e-5)


def test_a_loss_that_masked_rows_count_in_is_of_full_batches():
    """They compare what cannot be told apart, which is log n; where there is no full batch it is all there is."""
    validate = validation("contrastive", num_uniform=2, num_langevin=1, langevin_steps=2)
    full, *_ = batches(16)
    assert validate(batches(16))["validation/loss"] == validate([full])["validation/loss"]
    assert np.isfinite(validate([list(batches(16))[1]])["validation/loss"])


def test_errors_are_in_the_units_of_each_row_s_dataset():
    """Of a policy that always answers 0."""
    zeros = without_energy(jnp.zeros((1, ROWS, bimodal.HORIZON, 2)))
    method = Method(lambda *_: {}, lambda *_: (jnp.zeros(()), {}), lambda *_: zeros, lambda *_: None)
    ((batch, whose),) = batches(ROWS)
    found = make_validate(method, 1, one_device(), SPEC, UNITS, seed=0)({}, [(batch, whose)])
    real, mean, scale = batch.action_mask, UNITS.mean[whose][:, None], UNITS.scale[whose][:, None]
    assert found["validation/action_mse"] == pytest.approx(np.mean(batch.actions[real] ** 2), rel=1e-5)
    assert found["validation/mean_action_mse"] == pytest.approx(np.mean((batch.actions - mean)[real] ** 2), rel=1e-5)
    x, y = (np.sqrt(np.mean((batch.actions * scale)[..., i][real[..., i] & (scale[..., i] > 0)] ** 2)) for i in range(2))
    assert (found["validation/error/x"], found["validation/error/y"]) == pytest.approx((x, y), rel=1e-5)
    only_second = make_validate(method, 1, one_device(), SPEC, UNITS, seed=0)({}, [(batch, np.ones_like(whose))])
    assert "validation/error/x" in only_second
    assert "validation/error/y" not in only_second
