"""Langevin's stationary law, the contrastive optimum, the derivative-free search: each on a case with a known answer."""

import itertools

import bimodal
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ebt_jax.mcmc import MCMC
from ebt_jax.methods import make_method
from ebt_jax.methods.contrastive import Contrastive, derivative_free, langevin, uniform
from ebt_jax.methods.tie import contrast
from ebt_jax.types import Batch, EnergyModel


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def quadratic(std, center=0.0):
    return lambda actions: jnp.sum((actions - center) ** 2, axis=(1, 2)) / (2 * std**2)


@pytest.mark.parametrize("eps", [0.01, 0.16])
def test_langevin_has_its_stationary_variance(eps):
    """On E = a^2 / (2 s^2), s = .5: variance s^2 / (1 - eps / (4 s^2)), which is s^2 for small eps; 40,960 numbers, to 3 %."""
    std = 0.5
    chain = Contrastive(step_start=eps, step_end=eps, bound=100.0, max_move=0.0)
    start = jnp.full((1024, 8, 5), 1.0)
    steps = int(12 * std**2 / eps)
    sample = jax.jit(lambda: langevin(quadratic(std), start, keys(1024), chain, steps))()
    numbers = np.asarray(sample.actions)
    np.testing.assert_allclose(numbers.var(), std**2 / (1 - eps / (4 * std**2)), rtol=0.03)
    np.testing.assert_allclose(numbers.mean(), 0.0, atol=0.02)


def test_without_noise_the_chain_descends_by_half_eps():
    """a_k = (1 - eps / (2 s^2))^k a_0 with noise_scale 0 and a constant step."""
    chain = Contrastive(step_start=0.1, step_end=0.1, noise_scale=0.0, max_move=0.0)
    start = jax.random.uniform(jax.random.key(1), (3, 4, 2))
    sample = langevin(quadratic(1.0), start, keys(3), chain, 6)
    np.testing.assert_allclose(sample.actions, 0.95**6 * start, rtol=1e-5)
    np.testing.assert_allclose(sample.energy, quadratic(1.0)(sample.actions), rtol=1e-6)


def test_the_step_schedule_the_clip_and_the_box():
    """On a steep slope every step is max_move; on a gentle one eps_i / 2; nothing leaves the box."""
    chain = Contrastive(step_start=0.2, step_end=0.02, step_power=2.0, noise_scale=0.0, max_move=0.05, bound=0.5)
    slope = lambda size: lambda actions: size * jnp.sum(actions, axis=(1, 2))
    moved = lambda size: -np.diff(langevin(slope(size), jnp.full((1, 1, 1), 0.5), keys(1), chain, 4).trace_actions[:, 0, 0, 0])
    np.testing.assert_allclose(moved(100.0), 0.05, rtol=1e-5)
    np.testing.assert_allclose(moved(0.1), 0.05 * (0.02 + 0.18 * (1 - np.arange(4) / 4) ** 2), rtol=1e-4)
    path = langevin(slope(100.0), jnp.full((1, 1, 1), -0.49), keys(1), chain, 4).trace_actions
    assert path.min() == -0.5


def test_info_nce_learns_minus_log_p():
    """Four discrete actions, two uniform negatives, the expectation over all 4 x 16 draws written out: softmax(-E) becomes p."""
    p = np.array([0.1, 0.2, 0.3, 0.4])
    draws = np.array(list(itertools.product(range(4), repeat=3)))  # demonstration, two negatives
    weight = jnp.asarray(p[draws[:, 0]] / 16, jnp.float32)

    @jax.jit
    def learn():
        optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 400))
        loss = lambda energy: jnp.sum(weight * contrast(energy[draws.T]))

        def update(carry, _):
            energy, state = carry
            updates, state = optimizer.update(jax.grad(loss)(energy), state)
            return (optax.apply_updates(energy, updates), state), None

        start = jnp.zeros(4)
        return jax.lax.scan(update, (start, optimizer.init(start)), length=400)[0][0]

    np.testing.assert_allclose(jax.nn.softmax(-learn()), p, atol=1e-3)


def test_negatives_drawn_from_what_is_learnt_leave_a_fraction_of_minus_log_p():
    """Three actions, one negative from exp(-E / t): -E = t / (1 + t) log p, so that the draws follow p^(1 / (1 + t)); here t = 1."""
    p = jnp.array([0.1, 0.3, 0.6])
    draws = np.array(list(itertools.product(range(3), repeat=2)))

    def loss(energy):
        weight = p[draws[:, 0]] * jax.lax.stop_gradient(jax.nn.softmax(-energy))[draws[:, 1]]
        return jnp.sum(weight * contrast(energy[draws.T]))

    step = lambda _, energy: energy - jax.grad(loss)(energy)
    learnt = jax.nn.softmax(-jax.lax.fori_loop(0, 2000, step, jnp.zeros(3)))
    np.testing.assert_allclose(learnt, jnp.sqrt(p) / jnp.sqrt(p).sum(), atol=1e-3)


def test_uniform_draws_fill_the_box():
    numbers = np.asarray(uniform(keys(2000), (2, 3), 1.5))
    np.testing.assert_allclose([numbers.min(), numbers.max(), numbers.var()], [-1.5, 1.5, 1.5**2 / 3], rtol=0.03)


def test_the_gradient_penalty_is_what_is_steeper_than_the_margin():
    """E = slope sum(a): every candidate's |dE/da|_inf is `slope`, so the penalty is w (slope - margin)^2, or nothing."""
    model = EnergyModel(lambda *_: None, bimodal.encode, lambda p, c, a: p * jnp.sum(a, axis=(1, 2)), (2, 1))
    batch = Batch(bimodal.observe(jnp.zeros(4)), jnp.zeros((4, 2, 1)), jnp.ones((4, 2, 1), bool))
    settings = {"name": "contrastive", "langevin_steps": 2, "gradient_margin": 1.0, "gradient_penalty": 0.5}
    method = make_method(settings, MCMC(), model)
    for slope, penalty in ((3.0, 0.5 * 4), (0.5, 0.0)):
        loss, metrics = method.loss(jnp.float32(slope), batch, keys(4))
        np.testing.assert_allclose(loss - metrics["cross_entropy"], penalty, atol=1e-6)


def test_no_gradient_flows_through_the_chain():
    """With E = p |a|^2 and one negative n the loss is log(1 + exp(-p |n|^2)); n is held fixed, though the chain that made it knows p."""
    model = EnergyModel(lambda *_: None, bimodal.encode, lambda p, c, a: p * jnp.sum(a**2, axis=(1, 2)), (2, 1))
    batch = Batch(bimodal.observe(jnp.zeros(1)), jnp.zeros((1, 2, 1)), jnp.ones((1, 2, 1), bool))
    settings = {"name": "contrastive", "num_uniform": 0, "num_langevin": 1, "langevin_steps": 3, "gradient_penalty": 0.0, "max_move": 0.0}
    method = make_method(settings, MCMC(), model)
    p = 1.5
    loss, slope = jax.value_and_grad(lambda p: method.loss(p, batch, keys(1))[0])(jnp.float32(p))
    square = -np.log(np.expm1(loss)) / p
    np.testing.assert_allclose(slope, -square / (1 + np.exp(p * square)), rtol=1e-4)


def test_numbers_that_a_robot_lacks_are_seen_as_they_are_sampled():
    """E = a_0 a_1 of which a_1 is masked: its slope along a_0 is a_1, drawn from the box and the same for all chunks; 0 told nothing."""
    model = EnergyModel(lambda *_: None, bimodal.encode, lambda p, c, a: p * jnp.sum(a[:, 0] * a[:, 1], axis=-1), (2, 1))
    method = make_method({"name": "contrastive", "num_langevin": 0, "bound": 1.0}, MCMC(), model)
    batch = bimodal.draw(jax.random.key(0), 512)
    batch = batch._replace(actions=jnp.zeros((512, 2, 1)), action_mask=jnp.ones((512, 2, 1), bool).at[:, 1].set(False))
    _, metrics = method.loss(jnp.float32(1.0), batch, jax.random.split(jax.random.key(1), 512))
    assert metrics["slope"] == pytest.approx(0.5, abs=0.05)  # the mean of |U(-1, 1)|


def test_the_derivative_free_search_finds_the_minimum():
    """A narrow quadratic in two numbers: 256 candidates and three shrinking steps come within .05 of its centre, each sample's own."""
    centers = jnp.array([[[0.5, -0.3]], [[-0.7, 0.2]]])
    search = Contrastive(inference="derivative_free")
    candidates = jnp.moveaxis(uniform(keys(2), (256, 1, 2), 1.0), 1, 0)
    sample = jax.jit(lambda: derivative_free(quadratic(0.05, centers), candidates, keys(2, 1), search, 3))()
    np.testing.assert_allclose(sample.actions, centers, atol=0.05)
    np.testing.assert_allclose(sample.energy, quadratic(0.05, centers)(sample.actions), rtol=1e-5)
    assert np.all(sample.energy < sample.trace_energy[0])
    assert np.isnan(sample.trace_gradient_norm).all()


def test_a_wider_reach_is_another_unit_of_length():
    """Everything four times as far apart: the same loss, and samples four times as large; at 1 the same settings."""
    settings = {"name": "contrastive", "langevin_steps": 2, "num_uniform": 2, "num_langevin": 1}
    results = []
    for reach in (1.0, 4.0):
        energy = lambda params, context, actions, reach=reach: 3 * jnp.sum((actions / reach - 0.3) ** 2, axis=(1, 2))
        method = make_method(settings, MCMC(), EnergyModel(lambda *_: None, bimodal.encode, energy, (2, 1)), reach)
        batch = Batch(bimodal.observe(jnp.zeros(4)), jnp.full((4, 2, 1), 0.3 * reach), jnp.ones((4, 2, 1), bool))
        results.append(jax.jit(lambda m=method, b=batch: (m.sample(None, None, keys(4), 2).actions, m.loss(None, b, keys(4))[0]))())
    (narrow, loss), (wide, wide_loss) = results
    np.testing.assert_allclose(4 * narrow, wide, rtol=1e-5)
    np.testing.assert_allclose(loss, wide_loss, rtol=1e-5)
    assert Contrastive().reaching(1.0) == Contrastive()
    assert Contrastive(spread=0.3).reaching(2.0).spread == 0.6
