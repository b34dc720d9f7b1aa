"""First and second derivatives against finite differences in float64, and what bfloat16 does to them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebt_jax.mcmc import MCMC
from ebt_jax.methods import make_method
from ebt_jax.models import make_energy_model, model_variant
from ebt_jax.tree import named_leaves


@pytest.fixture(scope="module")
def exact(make_specs, make_batch, random_params):
    """A float64 energy of (params, actions), its parameters and actions."""
    with jax.enable_x64(True):
        specs = make_specs(("primary",), "embedding")
        model = make_energy_model(model_variant("debug", width=16, vision_width=4, precision="float64"), specs)
        batch = make_batch(specs, 2)
        params = random_params(model, batch)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float64)}
        # At initialisation residual branches are zero and so sit on the kink of their ReLU: differentiate beside it.
        params = jax.tree.map(lambda leaf, off: leaf + 0.05 * off, params, random_like(params, 2))
        energy = lambda params, actions: jnp.sum(model.energy(params, model.encode(params, batch.observation), actions))
        yield energy, params, batch.actions.astype(jnp.float64)


def random_like(tree, seed):
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape)), tree)


def central_difference(function, tree, direction, step=1e-5):
    ahead, behind = (jax.tree.map(lambda x, d, s=s: x + s * step * d, tree, direction) for s in (1, -1))
    return (function(ahead) - function(behind)) / (2 * step)


def inner(first, second):
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))


def test_the_action_gradient(exact, jit):
    energy, params, actions = exact
    function = functools.partial(energy, params)
    direction = random_like(actions, 0)
    slope = inner(jit(jax.grad(function))(actions), direction)
    np.testing.assert_allclose(slope, central_difference(jit(function), actions, direction), rtol=1e-7)


@pytest.mark.slow
def test_the_parameter_gradient_of_the_action_gradient(exact, jit):
    """Training differentiates dE/da: d/dp |dE/da|^2 reaches every parameter, encoders included, except the energy's own level."""
    energy, params, actions = exact

    def loss(params):
        return jnp.sum(jax.grad(energy, argnums=1)(params, actions) ** 2)

    direction = random_like(params, 1)
    gradient = jit(jax.grad(loss))(params)
    np.testing.assert_allclose(inner(gradient, direction), central_difference(jit(loss), params, direction), rtol=1e-6)
    still = [jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(gradient) if not jnp.any(leaf)]
    assert still == []


@pytest.mark.slow
def test_the_three_ways_through_a_descent_give_one_gradient(make_specs, make_batch, random_params, jit):
    """Three unrolled steps with momentum through a transformer: every parameter's gradient within 1e-5 of its length."""
    with jax.enable_x64(False):  # which this module's other networks want
        specs = make_specs()
        model, batch = make_energy_model(model_variant("debug", width=16, unroll=1), specs), make_batch(specs, 4)
        params, keys = random_params(model, batch), jax.random.split(jax.random.key(0), 4)

        def gradient(way):
            mcmc = MCMC(num_steps=3, step_size=0.1, momentum=0.9, stop_gradient=False, stop_gradient_velocity=False, gradient=way)
            method = make_method({"name": "ebt"}, mcmc, model)
            return named_leaves(jit(jax.grad(lambda params: method.loss(params, batch, keys)[0]))(params))

        saved = gradient("saved")
        for way in ("recomputed", "lean"):
            for name, leaf in gradient(way).items():
                assert jnp.linalg.norm(leaf - saved[name]) <= 1e-5 * jnp.linalg.norm(saved[name]), (way, name)


@pytest.mark.slow
def test_bfloat16_products_hardly_turn_the_gradient(full, make_batch, random_params, jit):
    """Parameters and energies stay float32; the action gradient moves by about 1 % of its length at these rough parameters."""
    specs, *_ = full
    batch = make_batch(specs, 8)
    config = model_variant("debug", vision="vit", vision_layers=1, unroll=1)
    exact, rounded = (make_energy_model(dataclasses.replace(config, precision=name), specs) for name in ("float32", "bfloat16"))
    params = random_params(exact, batch)
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(rounded.init, jax.random.key(0), batch))} == {jnp.dtype(jnp.float32)}

    def energy_and_gradient(model):
        energy = lambda a: model.energy(params, model.encode(params, batch.observation), a)
        return jit(lambda a: (energy(a), jax.grad(lambda a: jnp.sum(energy(a)))(a)))(batch.actions)

    (energy, gradient), (low_energy, low_gradient) = energy_and_gradient(exact), energy_and_gradient(rounded)
    assert low_energy.dtype == low_gradient.dtype == jnp.float32
    assert 0 < jnp.linalg.norm(low_gradient - gradient) < 0.02 * jnp.linalg.norm(gradient)
    assert 0 < jnp.linalg.norm(low_energy - energy) < 0.02 * jnp.linalg.norm(energy)


@pytest.mark.slow
def test_mixed_precision_keeps_both_derivatives(make_specs, make_batch, jit):
    """At initialisation and one cached context: dE/da within 0.5 % of float32, the Hessian along a direction within 2 %."""
    specs = make_specs(proprio=39, horizon=1, action_horizon=16)
    batch = make_batch(specs, 16)
    exact, rounded = (make_energy_model(model_variant("debug", precision=name), specs) for name in ("float32", "bfloat16"))
    params = jit(exact.init)(jax.random.key(0), batch)
    context = jit(rounded.encode)(params, batch.observation)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf, context)
    direction = random_like(batch.actions, 3).astype(jnp.float32)

    def derivatives(model, context):
        gradient = jax.grad(lambda actions: jnp.sum(model.energy(params, context, actions)))
        return jit(lambda: jax.jvp(gradient, (batch.actions,), (direction,)))()

    for found, expected, bound in zip(derivatives(rounded, context), derivatives(exact, wide), (0.005, 0.02), strict=True):
        assert found.dtype == jnp.float32
        assert 0 < jnp.linalg.norm(found - expected) <= bound * jnp.linalg.norm(expected)


def test_the_first_step_has_a_sensible_size(make_specs, make_batch, jit):
    """At initialisation a step size of 1 moves a noise chunk by a fraction of its own size: it neither stands nor explodes."""
    specs = make_specs(proprio=39, horizon=1, action_horizon=16)
    model, batch = make_energy_model(model_variant("debug"), specs), make_batch(specs, 16)
    params = jit(model.init)(jax.random.key(0), batch)
    context = jit(model.encode)(params, batch.observation)
    gradient = jit(jax.grad(lambda actions: jnp.sum(model.energy(params, context, actions))))(batch.actions)
    assert 0.03 < jnp.sqrt(jnp.mean(gradient**2)) < 1
