"""Descents that end by themselves, against the closed forms of a quadratic: E_k = E_0 (1 - alpha)^2k, |g_k| = (1 - alpha)^k |g_0|."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebt_jax.mcmc import MCMC, minimize_energy_until
from ebt_jax.stopping import Stopping

ALPHA = 0.5
START = jnp.array([1e-3, 1.0, 30.0])[:, None, None] * jnp.ones((3, 2, 2))  # |g_0| is twice the factor, root mean square the factor


def energy(actions):
    return 0.5 * jnp.sum(actions**2, axis=(1, 2))


def until(**rule):
    return minimize_energy_until(energy, START, MCMC(step_size=ALPHA), **{"tolerance": 0.0, "max_steps": 40, **rule})


def test_a_sample_rests_where_the_step_before_lowered_its_energy_by_too_little():
    _, trace = until(min_energy_drop=1e-4)
    for row, size in enumerate([1e-3, 1.0, 30.0]):
        energies = 2 * size**2 * (1 - ALPHA) ** (2.0 * np.arange(41))
        drops = energies[:-1] - energies[1:]
        assert trace.num_steps[row] == 1 + np.argmax(drops < 1e-4)  # found at the look after that step


def test_a_sample_rests_where_the_next_step_would_be_too_short():
    _, trace = until(min_step_length=1e-2)
    for row, size in enumerate([1e-3, 1.0, 30.0]):
        lengths = ALPHA * size * (1 - ALPHA) ** np.arange(41.0)
        assert trace.num_steps[row] == np.argmax(lengths < 1e-2)


def test_who_must_move_takes_the_first_step_and_no_other():
    """Noise on flat ground, or before steps that are all too short, would be an answer otherwise."""
    must = jnp.array([True, False, True])
    for rule in ({"tolerance": 1e9}, {"min_step_length": 1e9}):
        actions, trace = until(**rule, must_move=must)
        np.testing.assert_array_equal(trace.num_steps, [1, 0, 1])
        np.testing.assert_allclose(actions, jnp.where(must[:, None, None], (1 - ALPHA) * START, START), rtol=1e-6)
    np.testing.assert_array_equal(until(tolerance=0.1, must_move=must)[1].num_steps[1:], until(tolerance=0.1)[1].num_steps[1:])


def test_the_look_that_finds_rest_stands_in_the_trace_and_later_ones_do_not():
    _, trace = until(tolerance=0.1)
    for row, steps in enumerate(np.asarray(trace.num_steps)):
        assert np.isfinite(trace.gradient_norm[: steps + 1, row]).all()
        assert trace.gradient_norm[steps, row] < 0.1
        assert np.isnan(trace.gradient_norm[steps + 1 :, row]).all()
        np.testing.assert_array_equal(trace.actions[steps:, row], jnp.broadcast_to(trace.actions[-1, row], (41 - steps, 2, 2)))


def test_the_cap_is_an_array_that_compiles_nothing_anew():
    traces = []

    @jax.jit
    def run(limit):
        traces.append(1)
        return until(limit=limit)

    for limit in (1, 3, 7):
        actions, trace = run(jnp.int32(limit))
        np.testing.assert_array_equal(trace.num_steps, limit)
        np.testing.assert_allclose(actions, START * (1 - ALPHA) ** limit, rtol=1e-6)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_steps", 0), ("max_steps", 65), ("min_gradient", -1.0), ("min_energy_drop", np.nan), ("min_step_length", -1.0)],
)
def test_bad_settings_are_named(field, value):
    with pytest.raises(ValueError, match=f"stopping.{field} must .*{value}"):
        Stopping(**{field: value})
