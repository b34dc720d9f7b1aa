"""Flow matching on Gaussian data, where the optimal velocity is a formula, and on the toy with two answers."""

import bimodal
import jax
import numpy as np

from ebt_jax.mcmc import MCMC
from ebt_jax.methods import make_method
from ebt_jax.types import VectorModel

MEAN, STD = 0.3, 0.2


def sample(num_steps, velocity, count=64):
    model = VectorModel(lambda key, batch: None, lambda params, observation: None, lambda p, c, x, t: velocity(x, t), (4, 2))
    method = make_method({"name": "flow"}, MCMC(), model)
    return jax.jit(method.sample, static_argnums=3)(None, None, jax.random.split(jax.random.key(0), count), num_steps)


def optimal(x, time):
    """E[a* - noise | x_t] for entries N(MEAN, STD^2) and noise N(0, 1)."""
    t = time[:, None, None]
    return MEAN + (t * STD**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * STD**2) * (x - t * MEAN)


def test_the_exact_velocity_carries_noise_to_the_gaussian():
    """The flow's end is MEAN + STD noise, so mean and deviation are the data's; Euler's error falls as 1 / n."""
    errors = {}
    for n in (100, 200, 400):
        answer = sample(n, optimal)
        errors[n] = np.abs(answer.actions - (MEAN + STD * answer.trace_actions[0])).max()
    assert errors[400] < 0.01
    np.testing.assert_allclose([errors[100] / errors[200], errors[200] / errors[400]], 2, rtol=0.15)


def test_one_answer_takes_one_step():
    """With a single demonstration the lines do not cross, and any number of steps arrives exactly."""
    target = np.linspace(-1, 1, 8, dtype=np.float32).reshape(1, 4, 2)
    for n in (1, 2, 7):
        answer = sample(n, lambda x, t: (target - x) / (1 - t[:, None, None]))
        np.testing.assert_allclose(answer.actions, np.broadcast_to(target, answer.actions.shape), atol=1e-5)


def test_flow_keeps_both_modes():
    """Ten steps on the toy: median .014, 7 % in between, evenly on both sides, 90 % within .06 of an answer."""
    method = make_method({"name": "flow"}, MCMC(), bimodal.mlp_vector(timed=True))
    scores = bimodal.score(method, bimodal.train(method, 3000), 10)
    assert scores.median <= 0.02
    assert scores.collapsed <= 8
    assert scores.balance >= 0.8
    assert scores.within >= 85
