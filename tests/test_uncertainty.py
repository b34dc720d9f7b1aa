"""Each statistic in closed form, and all of them blind to a function of the observation."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from ebt_jax.uncertainty import action_spread, doubt, fit, reference_energies, relative_energy

CENTRE = jax.random.normal(jax.random.key(0), (5, 2, 3))
STARTS, ANSWERS = jax.random.normal(jax.random.key(1), (2, 4, 5, 2, 3))
REFERENCES = jax.random.normal(jax.random.key(2), (7, 2, 3))


def quadratic(actions):
    """|a - m(o)|^2 / 2."""
    return jnp.sum((actions - CENTRE) ** 2, axis=(1, 2)) / 2


def test_statistics_of_a_quadratic():
    found = doubt(quadratic, STARTS, ANSWERS, REFERENCES)
    before, after = (np.sum((x - CENTRE[None]) ** 2, axis=(2, 3)) / 2 for x in (STARTS, ANSWERS))
    np.testing.assert_allclose(found.energy_drop, (before - after).mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.gradient_norm, np.sqrt(2 * after).mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.energy_spread, after.std(0), rtol=1e-5)
    reference = np.sum((REFERENCES[:, None] - CENTRE[None]) ** 2, axis=(2, 3)) / 2
    np.testing.assert_allclose(found.relative_energy, after[0] + np.log(np.exp(-reference).mean(0)), rtol=1e-4)


def test_a_function_of_the_observation_changes_nothing():
    """To the bit: chunks and levels are multiples of 1/8 and 16, so that adding a level rounds nothing away."""
    levels = jnp.arange(5.0) * 16 - 20
    energy_fn = lambda actions: jnp.sum(actions**2 - actions, axis=(1, 2))
    arrays = [jnp.round(x * 8) / 8 for x in (STARTS, ANSWERS, REFERENCES)]
    plain, raised = (jax.jit(lambda *x, f=f: doubt(f, *x))(*arrays) for f in (energy_fn, lambda actions: energy_fn(actions) + levels))
    for name in ("energy_drop", "gradient_norm", "action_spread"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(raised, name))
    chex.assert_trees_all_close(plain, raised, atol=1e-5)


def test_action_spread_is_the_distance_of_pairs():
    pairs = [(m, n) for m in range(4) for n in range(4) if m != n]
    square = np.mean([np.mean((ANSWERS[m] - ANSWERS[n]) ** 2, axis=(1, 2)) for m, n in pairs], axis=0)
    np.testing.assert_allclose(action_spread(ANSWERS), np.sqrt(square), rtol=1e-5)
    np.testing.assert_array_equal(action_spread(ANSWERS[:1]), 0.0)


def test_reference_energies_hold_every_chunk_against_every_observation():
    found = reference_energies(quadratic, REFERENCES, 5)
    for k in range(7):
        np.testing.assert_allclose(found[k], quadratic(jnp.stack([REFERENCES[k]] * 5)), rtol=1e-6)


def test_relative_energy_undoes_what_contrast_over_actions_leaves_free():
    """-E = log p(a|o) / p(a) + h(o) and references from p(a) give minus the pointwise mutual information, whatever h."""
    joint = np.array([[0.3, 0.1, 0.1], [0.05, 0.05, 0.4]])
    information = np.log(joint / (joint.sum(1, keepdims=True) * joint.sum(0)))
    counts = (20 * joint.sum(0)).round().astype(int)  # 7, 3, 10: references in exact proportion
    energy = -information + np.array([[4.0], [-9.0]])
    reference = jnp.asarray(np.repeat(energy, counts, axis=1).T)
    for chunk in range(3):
        np.testing.assert_allclose(relative_energy(jnp.asarray(energy[:, chunk]), reference), -information[:, chunk], atol=1e-5)


def test_relative_energy_tends_to_the_best_reference_as_it_cools():
    energy, reference = jnp.array([2.0]), jnp.array([[0.5], [1.0], [3.0]])
    np.testing.assert_allclose(relative_energy(energy, reference, 0.01), [1.5], atol=0.02)
    np.testing.assert_allclose(relative_energy(energy, reference, 1e3), [2.0 - 1.5], atol=2e-3)


def test_the_fit_of_given_chunks_to_a_quadratic():
    actions, answers = ANSWERS[0], ANSWERS[1]
    found = fit(quadratic, actions, answers, REFERENCES)
    height = lambda x: np.sum((np.asarray(x) - np.asarray(CENTRE)) ** 2, axis=(-2, -1)) / 2
    energy, reference = height(actions), np.stack([height(chunk[None]) for chunk in REFERENCES])
    np.testing.assert_allclose(found.energy, energy, rtol=1e-5)
    np.testing.assert_allclose(found.above_answer, energy - height(answers), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.gradient_norm, np.sqrt(2 * energy), rtol=1e-5)
    np.testing.assert_allclose(found.rank, np.mean(reference < energy, axis=0), atol=1e-6)
    np.testing.assert_allclose(found.relative_energy, energy + np.log(np.exp(-reference).mean(0)), rtol=1e-4, atol=1e-5)
    whole = jnp.round(REFERENCES)  # sums of whole numbers are exact, so that equal chunks have equal energies
    same = fit(lambda x: jnp.sum(x, axis=(1, 2)), jnp.broadcast_to(whole[:1], (5, 2, 3)), answers, whole[:1])
    np.testing.assert_array_equal(same.rank, 0.5)


def test_only_the_raw_energy_of_a_fit_sees_a_function_of_the_observation():
    levels = jnp.arange(5.0) * 3
    plain, raised = (fit(f, ANSWERS[0], ANSWERS[1], REFERENCES) for f in (quadratic, lambda actions: quadratic(actions) + levels))
    chex.assert_trees_all_close(plain._replace(energy=0), raised._replace(energy=0), atol=1e-4)
    np.testing.assert_allclose(raised.energy - plain.energy, levels, atol=1e-4)
