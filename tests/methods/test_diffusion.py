"""DDPM and DDIM on Gaussian data, where the optimal denoiser is a formula, and on the toy with two answers."""

import itertools

import bimodal
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebt_jax.mcmc import MCMC
from ebt_jax.methods import make_method
from ebt_jax.methods.diffusion import signal_levels, step_coefficients
from ebt_jax.types import VectorModel

LEVELS, MEAN, STD = 100, 0.3, 0.2


def optimal(shape=(4, 2)):
    """E[noise | x_i] for chunks whose entries are N(MEAN, STD^2): sqrt(1 - abar) (x - sqrt(abar) MEAN) / (abar STD^2 + 1 - abar)."""
    table = jnp.asarray(signal_levels(LEVELS), jnp.float32)

    def predict(params, context, actions, time):
        signal = table[jnp.round(time * LEVELS).astype(int)][:, None, None]
        return jnp.sqrt(1 - signal) * (actions - jnp.sqrt(signal) * MEAN) / (signal * STD**2 + 1 - signal)

    return VectorModel(lambda key, batch: None, lambda params, observation: None, predict, shape)


def sample(num_steps, count=4096, **settings):
    method = make_method({"name": "diffusion", "num_levels": LEVELS, **settings}, MCMC(), optimal())
    return jax.jit(method.sample, static_argnums=3)(None, None, jax.random.split(jax.random.key(0), count), num_steps)


def expected_moments(num_levels, num_steps, ancestral, first=None):
    """Mean and standard deviation after the published updates, each linear in x with Gaussian noise, in float64.

    DDPM (Ho et al. 2020, equations 6, 7 and 11, with the posterior's variance); DDIM (Song et al. 2020, equation 12 with sigma = 0).
    """
    abar = signal_levels(num_levels)
    levels = np.round(np.linspace(first or num_levels, 0, num_steps + 1)).astype(int)
    mean, variance = 0.0, 1.0
    for i, j in itertools.pairwise(levels):
        slope = np.sqrt(1 - abar[i]) / (abar[i] * STD**2 + 1 - abar[i])  # noise = slope x + offset
        offset = -slope * np.sqrt(abar[i]) * MEAN
        if ancestral:
            alpha = abar[i] / abar[j]
            scale = (1 - (1 - alpha) / np.sqrt(1 - abar[i]) * slope) / np.sqrt(alpha)
            shift = -(1 - alpha) / np.sqrt(1 - abar[i]) * offset / np.sqrt(alpha)
            fresh = (1 - abar[j]) / (1 - abar[i]) * (1 - alpha)
        else:
            ratio = np.sqrt(abar[j] / abar[i])
            step = np.sqrt(1 - abar[j]) - ratio * np.sqrt(1 - abar[i])
            scale, shift, fresh = ratio + step * slope, step * offset, 0.0
        mean, variance = scale * mean + shift, scale**2 * variance + fresh
    return mean, np.sqrt(variance)


def test_signal_levels_are_the_squared_cosine():
    """abar_i = f(i / T) / f(0) but for the last, where beta is capped at .999."""
    levels = signal_levels(LEVELS)
    f = np.cos((np.arange(LEVELS + 1) / LEVELS + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(levels[:-1], f[:-1] / f[0], rtol=1e-12)
    np.testing.assert_allclose(levels[-1], 1e-3 * levels[-2], rtol=1e-9)
    assert levels[0] == 1


@pytest.mark.parametrize(("num_steps", "start"), [(100, 1.0), (50, 1.0), (10, 1.0), (2, 1.0), (100, 0.5), (50, 0.9), (2, 0.9), (10, 0.05)])
def test_gaussian_data_come_back_with_the_moments_of_the_published_sampler(num_steps, start):
    """32,768 numbers: mean to .005, deviation to 1.5 % (four standard errors). DDPM begins at T, no step at less than a level a step."""
    numbers = np.asarray(sample(num_steps, clip=0.0, start=start).actions, np.float64).ravel()
    first = LEVELS if num_steps == LEVELS else max(round(start * LEVELS), num_steps)
    mean, std = expected_moments(LEVELS, num_steps, num_steps == LEVELS, first)
    np.testing.assert_allclose(numbers.mean(), mean, atol=0.005)
    np.testing.assert_allclose(numbers.std(), std, rtol=0.015)


@pytest.mark.parametrize("ancestral", [True, False], ids=["ddpm", "ddim"])
def test_more_levels_come_closer_to_the_data(ancestral):
    """At 100 levels the deviation is 7 % small; the error falls with the number of levels, and is under 1 % at 1,600."""
    means, deviations = np.transpose([expected_moments(levels, levels, ancestral) for levels in (100, 400, 1600)])
    np.testing.assert_allclose(means, MEAN, rtol=0.01)
    errors = np.abs(deviations / STD - 1)
    assert errors[0] < 0.08
    assert errors[2] < 0.01
    assert np.all(np.diff(errors) < 0)


def test_ddim_is_deterministic():
    """On Gaussian data a straight line in the start: no noise is added on the way."""
    answer = sample(50, count=16, clip=0.0, start=1.0)
    mean, std = expected_moments(LEVELS, 50, ancestral=False)
    np.testing.assert_allclose(answer.actions, mean + std * answer.trace_actions[0], atol=1e-3)


def test_a_step_takes_a_noised_chunk_to_the_level_below():
    """With the true noise in hand, sqrt(abar_i) a + sqrt(1 - abar_i) e goes to sqrt(abar_j) a + sqrt(1 - abar_j) e exactly."""
    noise, actions = (jax.random.normal(jax.random.key(seed), (5, 4, 2)) for seed in (1, 2))
    abar = signal_levels(LEVELS)
    c = step_coefficients(LEVELS, 7, ancestral=False)
    np.testing.assert_allclose(c["next_signal"][:-1], c["signal"][1:], rtol=1e-6)
    assert c["level"][0] == LEVELS
    for k in range(1, 7):
        x = np.sqrt(abar[c["level"][k]]) * actions + np.sqrt(1 - abar[c["level"][k]]) * noise
        clean = (x - c["noise"][k] * noise) / c["signal"][k]
        np.testing.assert_allclose(clean, actions, atol=2e-3)
    assert (c["next_signal"][-1], c["next_noise"][-1]) == (1.0, 0.0)


def test_clipped_samples_lie_in_the_range():
    """Whatever the denoiser says: with the clip the answer is in [-clip, clip], and differs only where it had to."""
    bound = MEAN + STD
    clipped, free = sample(100, 256, clip=bound).actions, sample(100, 256, clip=0.0).actions
    assert jnp.max(jnp.abs(clipped)) <= bound
    assert jnp.max(free) > bound


@pytest.mark.slow
def test_diffusion_keeps_both_modes():
    """DDPM-20 on the toy: nobody in between, both sides, most within .06 of an answer."""
    method = make_method({"name": "diffusion", "num_levels": 20}, MCMC(), bimodal.mlp_vector(timed=True))
    scores = bimodal.score(method, bimodal.train(method, 2000), 20)
    assert scores.median <= 0.06
    assert scores.collapsed <= 10
    assert scores.balance >= 0.8
