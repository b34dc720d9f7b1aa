"""The update over devices: the same numbers on any mesh, one exchange a step, none inside the descent."""

import functools

import bimodal
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebt_jax.mcmc import MCMC
from ebt_jax.methods import make_method
from ebt_jax.sharding import make_mesh, partition_spec, shardings, to_devices
from ebt_jax.training.collectives import count_collectives
from ebt_jax.training.optimizer import OptimizerSettings, make_optimizer, update_ema
from ebt_jax.training.state import sample_keys, sharded_init
from ebt_jax.training.step import make_train_step

BATCH = jax.tree.map(np.asarray, bimodal.draw(jax.random.key(0), 32))


def method(gradient="saved", **settings):
    mcmc = MCMC(num_steps=3, extra_steps=1, noise_start=0.1, gradient=gradient)
    return make_method({"name": "ebt", **settings}, mcmc, bimodal.mlp_energy())


SETTINGS, METHOD = OptimizerSettings(warmup_steps=1), method()


def run(mesh, steps=3, settings=SETTINGS, method=METHOD):
    optimizer = make_optimizer(settings, 100)
    state = sharded_init(method, optimizer, BATCH, 0, mesh)
    step = make_train_step(method, optimizer, settings, mesh, state)
    losses = []
    for _ in range(steps):
        state, metrics = step(state, to_devices(BATCH, mesh))
        losses.append([float(metrics["loss"]), float(metrics["rmse_last"])])
    return jax.device_get(state), np.array(losses)


def one_device():
    return make_mesh(devices=jax.devices()[:1])


@pytest.mark.parametrize(("data", "fsdp"), [pytest.param(8, 1, marks=pytest.mark.slow), (2, 4), pytest.param(1, 8, marks=pytest.mark.slow)])
def test_eight_devices_equal_one(data, fsdp, monkeypatch):
    """Losses, parameters, moments and EMA of three updates, to 1e-6; with every matrix sharded."""
    monkeypatch.setattr("ebt_jax.sharding.SMALLEST_SHARDED", 64)
    expected, expected_losses = run(one_device())
    state, losses = run(make_mesh(data, fsdp))
    np.testing.assert_allclose(losses, expected_losses, atol=1e-6)
    chex.assert_trees_all_close(state.params, expected.params, atol=1e-6)
    chex.assert_trees_all_close(state.ema_params, expected.ema_params, atol=1e-6)
    chex.assert_trees_all_close(state.opt_state, expected.opt_state, atol=1e-6)


def test_parameters_are_sharded_where_they_should_be(monkeypatch):
    monkeypatch.setattr("ebt_jax.sharding.SMALLEST_SHARDED", 64)
    mesh = make_mesh(2, 4)
    state = sharded_init(method(), make_optimizer(OptimizerSettings(), 10), BATCH, 0, mesh)
    weight = state.params[1][0]  # [128, 128]
    assert weight.addressable_shards[0].data.shape == (32, 128)
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.shape == (128, 128)]
    assert len(moments) == 4
    assert all(leaf.sharding == weight.sharding for leaf in moments)


def test_the_rule_of_sharding():
    assert partition_spec((3, 256, 512), 8) == jax.P(None, None, "fsdp")
    assert partition_spec((512, 255), 8) == jax.P("fsdp")
    assert partition_spec((511, 255), 8) == jax.P()
    assert partition_spec((8,), 8) == jax.P()
    assert partition_spec((512, 512), 1) == jax.P()


@functools.cache
def plain_run():
    return run(make_mesh(2, 2, jax.devices()[:4]))


@pytest.mark.slow
@pytest.mark.parametrize(("parts", "gradient"), [(4, "saved"), (4, "lean"), (1, "recomputed")])
def test_neither_accumulation_nor_how_the_descent_is_differentiated_changes_anything(parts, gradient):
    plain, plain_losses = plain_run()
    settings = OptimizerSettings(warmup_steps=1, accumulate_steps=parts)
    state, losses = run(make_mesh(2, 2, jax.devices()[:4]), settings=settings, method=method(gradient))
    np.testing.assert_allclose(losses, plain_losses, atol=1e-6)
    chex.assert_trees_all_close(state.params, plain.params, atol=1e-6)


@pytest.mark.parametrize(("data", "fsdp", "gradient"), [(8, 1, "saved"), (2, 4, "saved"), (2, 4, "lean")])
def test_no_collective_inside_the_descent(data, fsdp, gradient, monkeypatch):
    """The compiled module holds collectives, and none in anything that a while loop runs."""
    monkeypatch.setattr("ebt_jax.sharding.SMALLEST_SHARDED", 64)
    mesh, chosen, settings = make_mesh(data, fsdp), method(gradient), OptimizerSettings()
    optimizer = make_optimizer(settings, 100)
    state = sharded_init(chosen, optimizer, BATCH, 0, mesh)
    step = make_train_step(chosen, optimizer, settings, mesh, state)
    kinds, inside = count_collectives(step.lower(state, to_devices(BATCH, mesh)).compile().as_text())
    assert kinds
    assert ("all-gather" in kinds) == (fsdp > 1)
    assert inside == 0


def test_a_collective_inside_the_descent_is_seen(monkeypatch):
    """A parameter that is not a device's own copy has its gradient summed at every use: what the cast in `gather` is for."""
    monkeypatch.setattr("jax.lax.pcast", lambda leaf, axes, to: leaf)
    mesh, chosen, settings = make_mesh(8, 1), method(), OptimizerSettings()
    optimizer = make_optimizer(settings, 100)
    state = sharded_init(chosen, optimizer, BATCH, 0, mesh)
    step = make_train_step(chosen, optimizer, settings, mesh, state)
    _, inside = count_collectives(step.lower(state, to_devices(BATCH, mesh)).compile().as_text())
    assert inside > 0


def test_the_step_compiles_once():
    settings = OptimizerSettings()
    optimizer = make_optimizer(settings, 100)
    mesh = make_mesh()
    state = sharded_init(method(), optimizer, BATCH, 0, mesh)
    step = make_train_step(method(), optimizer, settings, mesh, state)
    for _ in range(3):
        state, _ = step(state, to_devices(BATCH, mesh))
    assert step._cache_size() == 1


def test_sample_keys_depend_on_step_and_position_alone():
    key = jax.random.key_data(jax.random.key(3))
    many = jax.random.key_data(sample_keys(key, jnp.int32(5), 64))
    few = jax.random.key_data(sample_keys(key, jnp.int32(5), 8))
    np.testing.assert_array_equal(many[:8], few)
    assert len(np.unique(np.concatenate([many, jax.random.key_data(sample_keys(key, jnp.int32(6), 64))]), axis=0)) == 128


RATES = {
    "constant": ({"ema_warmup": False}, lambda step: 0.25),
    "warm-up": ({"ema_warmup": True}, lambda step: min(0.25, (1 + step) / (10 + step))),
    "power": ({"ema_power": 0.2}, lambda step: min(0.25, 1 - max(step, 1) ** -0.2)),
}


@pytest.mark.parametrize("name", RATES)
def test_the_average_follows_its_recurrence(name):
    changes, rate_of = RATES[name]
    settings = OptimizerSettings(ema_decay=0.25, **changes)
    average, want = {"w": jnp.array([1.0])}, 1.0
    for step in range(7):
        average = update_ema(average, {"w": jnp.array([3.0])}, jnp.int32(step), settings)
        rate = rate_of(step)
        want = rate * want + (1 - rate) * 3.0
        np.testing.assert_allclose(average["w"], [want], rtol=1e-6)


@pytest.mark.parametrize("decayed", ["kernels", "all"])
def test_weight_decay_reaches_kernels_or_everything(decayed):
    """Stacked layers give a bias and a scale two axes; they stay biases and scales."""
    params = {"out": {"kernel": jnp.ones((3, 2, 2)), "bias": jnp.ones((3, 2))}, "norm": {"scale": jnp.ones((3, 2))}}
    optimizer = make_optimizer(OptimizerSettings(learning_rate=0.1, warmup_steps=0, weight_decay=0.5, decayed=decayed), 10)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    np.testing.assert_allclose(updates["out"]["kernel"], -0.05, rtol=1e-6)
    for leaf in (updates["out"]["bias"], updates["norm"]["scale"]):
        np.testing.assert_allclose(leaf, -0.05 if decayed == "all" else 0.0, rtol=1e-6)


def test_mesh_errors_name_the_sizes():
    with pytest.raises(ValueError, match="must equal the number of devices, 8, got 3 x 1"):
        make_mesh(3, 1)
    with pytest.raises(ValueError, match="at most must be -1"):
        make_mesh(-1, -1)
    with pytest.raises(ValueError, match="mesh.fsdp must be positive"):
        make_mesh(8, 0)
    assert shardings({"x": jnp.zeros((4,))}, make_mesh())["x"].is_fully_replicated
