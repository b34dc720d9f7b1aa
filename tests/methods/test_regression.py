"""One pass: squared error averages, the energy score on a generator does not."""

import bimodal

from ebt_jax.mcmc import MCMC
from ebt_jax.methods import make_method


def test_regression_averages_the_modes():
    method = make_method({"name": "regression"}, MCMC(), bimodal.mlp_vector(timed=False))
    scores = bimodal.score(method, bimodal.train(method, 500), 1)
    assert scores.collapsed >= 99
    assert scores.median > 0.2


def test_the_energy_score_on_a_generator_keeps_both_modes():
    """The energy score's twin without an energy."""
    method = make_method({"name": "regression", "objective": "energy_score"}, MCMC(), bimodal.mlp_vector(timed=False))
    scores = bimodal.score(method, bimodal.train(method, 1500), 1)
    assert scores.median <= 0.06
    assert scores.collapsed <= 10
    assert scores.balance >= 0.8
