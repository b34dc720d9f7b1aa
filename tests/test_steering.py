"""What a call may ask of a descent: rest, warm starts, held rows, several starts; each against a closed form."""

import jax.numpy as jnp
import numpy as np
import pytest
from quadratic import SCALE, A, H, keys, observe, quadratic_policy, without_energy

from ebt_jax.constraints import bounds
from ebt_jax.execution import WarmStart
from ebt_jax.policy import NotFiniteError
from ebt_jax.stopping import Stopping

CENTERS = np.array([[0.3, -0.6], [0.0, 0.0], [5.0, 2.0]], np.float32)


def normalised(output):
    return output.actions / SCALE


def test_the_answer_carries_energy_drop_gradient_norm_and_steps():
    """a_2 - c = (1 - alpha)^2 (a_0 - c): everything follows from how far the answer is from the center."""
    policy = quadratic_policy(step_size=0.5)
    output = policy.sample_actions(observe(CENTERS), keys(policy, 3))
    square = ((normalised(output)[1:2] - CENTERS[1:2, None]) ** 2).sum((1, 2))  # no limit cuts this row
    np.testing.assert_allclose(output.energy[1:2], square / 2, rtol=1e-4)
    np.testing.assert_allclose(output.energy_drop[1:2], square / 2 * (0.5**-4 - 1), rtol=1e-4)
    np.testing.assert_allclose(output.gradient_norm[1:2], np.sqrt(square) / 0.5, rtol=1e-4)
    np.testing.assert_array_equal(output.num_steps, 2)
    np.testing.assert_array_equal(output.penalty, 0)


def test_each_sample_rests_by_itself_whatever_its_neighbours_do():
    policy = quadratic_policy(step_size=0.5)
    rule = Stopping(40, min_gradient=1e-3)
    output = policy.sample_actions(observe(CENTERS), keys(policy, 3), stopping=rule)
    assert (output.gradient_norm < 1e-3).all()
    assert len(set(output.num_steps.tolist())) > 1
    for row in range(3):
        alone = policy.sample_actions(observe(CENTERS[row : row + 1]), keys(policy, 3)[row : row + 1], stopping=rule)
        assert alone.num_steps[0] == output.num_steps[row]
        np.testing.assert_allclose(alone.actions[0], output.actions[row], atol=1e-6)


def test_a_policy_keeps_its_own_rule_whatever_else_is_asked():
    """A start that says nothing and a constraint that costs nothing change nothing, steps included."""
    policy = quadratic_policy(step_size=0.5, min_gradient=1e-2)
    ask = lambda steps, **how: policy.sample_actions(observe(CENTERS), keys(policy, 3), steps, **how)
    nothing = WarmStart(np.full((3, H, A), np.nan, np.float32), np.zeros(3, int))
    free = lambda actions, proprio: jnp.zeros(len(actions))
    for steps in (40, 4):
        plain = ask(steps)
        assert (plain.num_steps < 40).all()
        for how in ({"warm_start": nothing}, {"constraint": free}):
            asked = ask(steps, **how)
            np.testing.assert_array_equal(asked.num_steps, plain.num_steps)
            np.testing.assert_allclose(asked.actions, plain.actions, atol=1e-6)
    assert len(set(ask(40).num_steps.tolist())) > 1
    capped = policy.sample_actions(observe(CENTERS), keys(policy, 3), stopping=Stopping(20), warm_start=nothing)
    np.testing.assert_array_equal(capped.num_steps, 20)  # who gives a rule gets that


def test_a_warm_start_begins_where_it_says_and_with_noise_elsewhere():
    policy = quadratic_policy(step_size=1e-6)
    start = np.full((3, H, A), np.nan, np.float32)
    start[:2, :3] = 0.07
    output = policy.sample_actions(observe(CENTERS), keys(policy, 3), 1, warm_start=WarmStart(start, np.zeros(3, int)))
    cold = policy.sample_actions(observe(CENTERS), keys(policy, 3), 1)
    np.testing.assert_allclose(output.actions[:2, :3], 0.07, atol=1e-5)
    np.testing.assert_allclose(output.actions[:2, 3:], cold.actions[:2, 3:], atol=1e-5)
    np.testing.assert_allclose(output.actions[2], cold.actions[2], atol=1e-5)


def test_the_rest_of_the_chunk_settles_around_the_committed_prefix():
    """E = 1/2 |a - c|^2 + s/2 |differences|^2 with rows held is a linear system for the others."""
    stiffness, committed = 2.0, 2
    policy = quadratic_policy(step_size=0.15, stiffness=stiffness)
    start = np.full((1, H, A), np.nan, np.float32)
    start[0, :committed] = [[0.123, -0.2], [0.2, 0.1]]
    warm = WarmStart(start, np.array([committed]))
    output = policy.sample_actions(observe([[0.5, -1.0]]), keys(policy, 1), stopping=Stopping(64), warm_start=warm)
    np.testing.assert_array_equal(output.actions[0, :committed], start[0, :committed])
    chain = np.diff(np.eye(H), axis=0)
    hessian = np.eye(H) + stiffness * chain.T @ chain
    for dimension, center in enumerate([0.5, -1.0]):
        held = start[0, :committed, dimension] / SCALE
        free = np.linalg.solve(hessian[committed:, committed:], center - hessian[committed:, :committed] @ held)
        np.testing.assert_allclose(output.actions[0, committed:, dimension] / SCALE, free, atol=1e-3)
    assert output.gradient_norm[0] < 0.01, "held rows count in no norm"


def test_the_best_of_several_starts_finds_the_deeper_well():
    """E = sum (a^2 - 1)^2 / 8 + tilt a over a chunk held to one number by its first entry: wells near -1 (lower) and 1."""

    def wells(context, actions):
        first = actions[:, 0, 0]
        return (first**2 - 1) ** 2 + 0.3 * first + 0.5 * jnp.sum(actions[:, 1:] ** 2, axis=(1, 2)) + 0.5 * actions[:, 0, 1] ** 2

    policy = quadratic_policy(step_size=0.1, energy=wells)
    observation, drawn = observe(np.zeros((16, 2))), keys(policy, 16)
    one = policy.sample_actions(observation, drawn, stopping=Stopping(60))
    many = policy.sample_actions(observation, drawn, stopping=Stopping(60), num_starts=8)
    left = one.actions[:, 0, 0] < 0
    assert 0 < left.sum() < 16
    assert (many.actions[:, 0, 0] < 0).all()
    np.testing.assert_allclose(many.actions[left, 0, 0], one.actions[left, 0, 0], atol=1e-4)
    assert (many.energy <= one.energy + 1e-6).all()
    np.testing.assert_allclose(many.energy, policy.energy(observation, many.actions), atol=1e-5)


def test_what_a_method_cannot_do_is_refused():
    policy = without_energy(quadratic_policy())
    ask = lambda **request: policy.sample_actions(observe(CENTERS), keys(policy, 3), **request)
    with pytest.raises(ValueError, match=r"stopping must be asked of a policy that descends, got method 'ebt'"):
        ask(stopping=Stopping())
    with pytest.raises(ValueError, match=r"num_starts > 1, .* of a policy with an energy"):
        ask(num_starts=2)
    with pytest.raises(ValueError, match="constraint must be asked of a policy that descends"):
        ask(constraint=bounds(0.0, 1.0, 1.0))


def test_requests_that_contradict_themselves_are_refused():
    policy = quadratic_policy()
    ask = lambda *steps, **request: policy.sample_actions(observe(CENTERS), keys(policy, 3), *steps, **request)
    with pytest.raises(ValueError, match="num_steps must be None where stopping is given, got 3"):
        ask(3, stopping=Stopping())
    with pytest.raises(ValueError, match=r"warm_start must hold actions \[3, 6, 2\]"):
        ask(warm_start=WarmStart(np.zeros((3, H + 1, A), np.float32), np.zeros(3, int)))
    start = np.zeros((3, H, A), np.float32)
    start[1, 1] = np.nan
    with pytest.raises(ValueError, match=r"finite in committed rows, got NaN in samples \[1\]"):
        ask(warm_start=WarmStart(start, np.full(3, 2)))


def test_an_answer_that_is_no_number_is_refused_and_the_other_rows_are_kept():
    """Row 1 diverges to infinity, which limits would have made a number of."""
    policy = quadratic_policy(energy=lambda context, actions: jnp.sum(actions**2, axis=(1, 2)) * jnp.where(context[:, 0] > 5, jnp.inf, 0.5))
    observation = observe([[0.5, -0.5], [9.0, 0.0]])
    with pytest.raises(NotFiniteError, match=r"actions must be finite, got NaN or infinity in rows \[1\]. Do not move") as caught:
        policy.sample_actions(observation, keys(policy, 2))
    actions = caught.value.output.actions
    assert np.isfinite(actions[0]).all()
    assert np.isnan(actions[1]).all()
