"""The tie on tables small enough to optimise directly, and the freedom it takes away."""

import functools

import bimodal
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebt_jax.mcmc import MCMC
from ebt_jax.methods import METHODS, make_method
from ebt_jax.methods.tie import contrast, paired_energies
from ebt_jax.sharding import make_mesh, to_devices
from ebt_jax.training.step import make_loss_and_gradient

ENERGY_METHODS = [
    {"name": "ebt"},
    {"name": "ebt", "objective": "energy_score", "num_starts": 2},
    {"name": "equilibrium"},
    {"name": "contrastive", "num_uniform": 2, "num_langevin": 1, "langevin_steps": 2},
]
INDICES = [
    pytest.param(index, marks=pytest.mark.slow) if settings["name"] == "contrastive" else index
    for index, settings in enumerate(ENERGY_METHODS)
]
MODEL = bimodal.mlp_energy(width=16)


def lifted(energy):
    """The same energy with some h(o) added."""
    return MODEL._replace(energy=lambda params, context, actions: energy(params, context, actions) + 3 * jnp.sin(40 * context[:, 0]))


def at_one_batch(settings, model=MODEL):
    """The loss as a function of (params, actions, mask), and a place to look at it."""
    method = make_method(settings, MCMC(num_steps=1), model)
    batch = bimodal.draw(jax.random.key(0), 8)
    keys = jax.random.split(jax.random.key(2), 8)
    loss = lambda params, actions, mask: method.loss(params, batch._replace(actions=actions, action_mask=mask), keys)
    return loss, (MODEL.init(jax.random.key(1), batch), batch.actions, batch.action_mask)


@functools.cache
def plain(index):
    """(loss, gradient) of ENERGY_METHODS[index] without a tie."""
    loss, place = at_one_batch(ENERGY_METHODS[index])
    return jax.jit(jax.value_and_grad(lambda *x: loss(*x)[0]))(*place)


def test_no_energy_is_left_out():
    assert {settings["name"] for settings in ENERGY_METHODS} == {name for name, (kind, _) in METHODS.items() if kind().head == "energy"}


@pytest.fixture
def table():
    """p(o, a) of 3 observations and 4 chunks, all positive."""
    joint = np.random.default_rng(0).gamma(1.0, size=(3, 4)) + 0.05
    return jnp.asarray(joint / joint.sum())


def minimise(loss, start, steps=25):
    """Damped Newton with the pseudo-inverse: directions that cost nothing stay where they were."""
    flat = jax.jit(lambda x: (jax.grad(loss)(x), jax.hessian(loss)(x)))
    x = start
    for _ in range(steps):
        gradient, hessian = (np.asarray(part, np.float64) for part in flat(x))
        size = x.size
        move = np.linalg.pinv(hessian.reshape(size, size), rcond=1e-5, hermitian=True) @ gradient.ravel()
        x = x - jnp.asarray(move / max(1.0, np.linalg.norm(move))).reshape(x.shape)
    np.testing.assert_allclose(jax.grad(loss)(x), 0.0, atol=1e-6)
    return np.asarray(x)


@pytest.mark.parametrize("num_negatives", [1, 2])
def test_optimum_of_the_contrast_is_the_density_ratio(table, num_negatives):
    """-E(o, a) = log p(o, a) / (p(o) p(a)) + c(a), for any number of negatives from p(o)."""
    marginal = table.sum(1)
    draws = jnp.stack(jnp.meshgrid(*[jnp.arange(3)] * (1 + num_negatives), jnp.arange(4), indexing="ij"), -1).reshape(-1, num_negatives + 2)
    rows, chunk = draws[:, :-1].T, draws[:, -1]
    chance = table[rows[0], chunk] * jnp.prod(marginal[rows[1:]], axis=0)
    energy = minimise(lambda energy: jnp.sum(chance * contrast(energy[rows, chunk[None]])), jnp.zeros((3, 4)))
    free = -energy - np.log(table / (marginal[:, None] * table.sum(0)[None]))
    np.testing.assert_allclose(free, np.broadcast_to(free[:1], free.shape), atol=1e-4)


def test_contrast_pins_the_level_up_to_one_constant(table):
    """For a given F the best h has exp h(o) = sum_a p(a) exp(-F(o, a)) / Z(a), Z(a) = sum_o p(o) exp(-F(o, a) - h(o))."""
    of_observation, of_chunk = table.sum(1), table.sum(0)
    given = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)))

    def partition(h):
        return jnp.sum(of_observation[:, None] * jnp.exp(-given - h[:, None]), axis=0)

    def loss(h):
        return jnp.sum(table * (given + h[:, None] + jnp.log(partition(h))[None]))

    pinned = minimise(loss, jnp.zeros(3))
    np.testing.assert_allclose(jnp.exp(pinned), jnp.exp(-given) @ (of_chunk / partition(pinned)), rtol=1e-4)
    elsewhere = minimise(loss, jnp.array([2.0, -1.0, 0.5]))
    np.testing.assert_allclose(pinned - pinned[0], elsewhere - elsewhere[0], atol=1e-4)


def test_pairs_are_the_diagonals_of_the_whole_table():
    observations, actions = jax.random.normal(jax.random.key(0), (6, 3)), jax.random.normal(jax.random.key(1), (6, 1, 3))
    energy_fn = lambda actions: jnp.sum(jnp.sin(observations * actions[:, 0] + observations), axis=1)
    whole = np.array([[energy_fn(jnp.broadcast_to(chunk, (6, 1, 3)))[o] for chunk in actions] for o in range(6)])
    pairs = paired_energies(energy_fn, actions, 4)
    for m in range(5):
        np.testing.assert_allclose(pairs[m], [whole[(i + m) % 6, i] for i in range(6)], rtol=1e-5)


def test_one_evaluation_is_traced_for_any_number_of_negatives():
    traced = chex.assert_max_traces(lambda actions: jnp.sum(actions, axis=(1, 2)), n=1)
    paired_energies(traced, jnp.ones((8, 2, 2)), 7)


@pytest.mark.parametrize("index", INDICES)
def test_without_the_tie_a_function_of_the_observation_is_free(index):
    """The loss and every parameter's gradient are the same for E and for E + h(o): to the bit, but for a contrast of energies."""
    tolerance = 1e-5 if ENERGY_METHODS[index]["name"] == "contrastive" else 0.0
    loss, place = at_one_batch(ENERGY_METHODS[index], lifted(MODEL.energy))
    raised, gradient = jax.jit(jax.value_and_grad(lambda *x: loss(*x)[0]))(*place)
    np.testing.assert_allclose(plain(index)[0], raised, rtol=tolerance)
    chex.assert_trees_all_close(plain(index)[1], gradient, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("index", INDICES)
def test_with_the_tie_it_is_not(index):
    settings = {**ENERGY_METHODS[index], "tie_weight": 0.5, "tie_negatives": 3}
    (loss, place), (lifted_loss, _) = at_one_batch(settings), at_one_batch(settings, lifted(MODEL.energy))
    value, metrics = jax.jit(loss)(*place)
    np.testing.assert_allclose(value, plain(index)[0] + 0.5 * metrics["tie"], rtol=1e-6)
    assert 0 <= metrics["tie_accuracy"] <= 1
    assert abs(value - jax.jit(lifted_loss)(*place)[0]) > 0.1


def test_masked_actions_never_move_the_tie():
    loss, (params, actions, _) = at_one_batch({"name": "ebt", "tie_weight": 1.0, "tie_negatives": 3})
    mask = jnp.ones(actions.shape, bool).at[:, 5:].set(False).at[3].set(False)
    gradient = jax.jit(jax.grad(lambda *x: loss(*x)[1]["tie"], argnums=(0, 1)))(params, jnp.where(mask, actions, 7.0), mask)
    chex.assert_tree_all_finite(gradient)
    assert np.abs(gradient[1][:3, :5]).max() > 0
    np.testing.assert_array_equal(np.where(mask, 0.0, gradient[1]), 0.0)


@pytest.mark.slow
def test_over_devices_each_ties_its_own_rows():
    """Eight devices: the mean of the losses and gradients of eight parts, so no chunk is held against another device's rows."""
    method = make_method({"name": "equilibrium", "tie_weight": 1.0, "tie_negatives": 1}, MCMC(), MODEL)
    batch, keys, mesh = bimodal.draw(jax.random.key(0), 16), jax.random.split(jax.random.key(2), 16), make_mesh()
    params = MODEL.init(jax.random.key(1), batch)
    loss, _, gradient = jax.jit(make_loss_and_gradient(method.loss, mesh, params))(params, *to_devices((batch, keys), mesh))
    parts = jax.tree.map(lambda x: x.reshape(8, 2, *x.shape[1:]), (batch, keys))
    each = jax.jit(jax.vmap(jax.value_and_grad(lambda p, *part: method.loss(p, *part)[0]), (None, 0, 0)))(params, *parts)
    chex.assert_trees_all_close((loss, gradient), jax.tree.map(lambda x: jnp.mean(x, axis=0), each), rtol=1e-4, atol=1e-6)


def test_bad_settings_say_what_is_wrong():
    with pytest.raises(ValueError, match="method.tie_weight must be at least 0, got -1"):
        make_method({"name": "equilibrium", "tie_weight": -1.0}, MCMC(), MODEL)
    with pytest.raises(ValueError, match="method.tie_temperature must be positive"):
        make_method({"name": "ebt", "tie_temperature": 0.0}, MCMC(), MODEL)
    loss, place = at_one_batch({"name": "ebt", "tie_weight": 1.0})
    with pytest.raises(ValueError, match="method.tie_negatives must be less than the samples of one device .*, 8, got 8"):
        jax.eval_shape(loss, *place)
