"""Penalties by hand, and where a descent settles between an energy and a constraint."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quadratic import SCALE, keys, observe, quadratic_policy

from ebt_jax import constraints
from ebt_jax.stopping import Stopping

NOWHERE = jnp.zeros((1, 2))
SUM_OF_THREE = (2 * np.sin(np.pi / 14)) ** -2
"""Largest curvature of half the squared running sums of three numbers, in closed form."""


def test_bounds_cost_half_the_squared_violation():
    actions = jnp.array([[[0.0, 5.0], [1.2, -7.0], [-1.4, 0.0]]])
    penalty = constraints.bounds([-1.0, -np.inf], [1.0, np.inf], unit=0.2)(actions, NOWHERE)
    np.testing.assert_allclose(penalty, [0.5 * (1.0**2 + 2.0**2)], rtol=1e-5)


def test_velocity_looks_at_differences():
    actions = jnp.array([[[0.0], [0.1], [0.5], [-0.1]]])
    np.testing.assert_allclose(constraints.velocity(0.3, unit=0.1)(actions, NOWHERE), [0.5 * (1.0**2 + 3.0**2) / 4], rtol=1e-5)


def test_workspace_adds_displacements_to_where_the_robot_is():
    actions = jnp.array([[[9.0, 0.2], [9.0, 0.2], [9.0, -0.5]]])
    proprio = jnp.array([[0.0, 0.7]])  # positions .9, 1.1, .6
    relative = constraints.workspace(0.65, 1.0, 0.1, actions=[1], proprio=[1])
    np.testing.assert_allclose(relative(actions, proprio), [0.5 * (1.0**2 + 0.5**2) / SUM_OF_THREE], rtol=1e-4)
    absolute = constraints.workspace(0.0, 1.0, 0.5, actions=[1])
    np.testing.assert_allclose(absolute(actions, proprio), [0.5], rtol=1e-5)


def test_total_weighs_and_adds():
    low, high = constraints.bounds(0.0, np.inf, 1.0), constraints.bounds(-np.inf, 0.0, 1.0)
    actions = jnp.array([[[2.0]], [[-3.0]]])
    np.testing.assert_allclose(constraints.total(low, high, weights=[1.0, 10.0])(actions, jnp.zeros((2, 1))), [20.0, 4.5])
    with pytest.raises(ValueError, match=r"weights must be one a constraint.*got 1 for 2"):
        constraints.total(low, high, weights=[1.0])


def test_gradients_are_finite_everywhere():
    constraint = constraints.total(constraints.bounds(-1.0, 1.0, 1.0), constraints.velocity(0.1, 1.0))
    for actions in (jnp.zeros((1, 3, 1)), jnp.ones((1, 3, 1)), 5 * jnp.ones((1, 3, 1))):
        assert jnp.isfinite(jax.grad(lambda a: constraint(a, NOWHERE).sum())(actions)).all()


@pytest.mark.parametrize(
    "constraint",
    [
        constraints.bounds(-0.1, 0.1, 1.0),
        constraints.velocity(0.1, 1.0),
        constraints.workspace(-0.1, 0.1, 1.0, actions=[0]),
        constraints.workspace(-0.1, 0.1, 1.0, actions=[0], proprio=[0]),
    ],
)
def test_no_constraint_of_weight_one_curves_more_than_one(constraint):
    """So that one rule for weights holds for all: the Hessian's largest eigenvalue where everything is violated."""
    hessian = jax.hessian(lambda a: constraint(a[None, :, None], jnp.zeros((1, 1)))[0])
    largest = max(np.linalg.eigvalsh(hessian(actions))[-1] for actions in (5.0 * (-1.0) ** jnp.arange(6), 5.0 * jnp.ones(6)))
    assert 0.9 < largest <= 1 + 1e-5


@pytest.mark.parametrize("weight", [0.5, 1.0, 3.0])
def test_the_answer_is_where_energy_and_penalty_balance(weight):
    """E = (a - m)^2 / 2 beside w (a - l)^2 / 2 above l: the minimum is (m + w l) / (1 + w), in normalised units."""
    policy = quadratic_policy(step_size=0.3)
    constraint = constraints.total(constraints.bounds(-np.inf, 0.4 * SCALE, policy.action_normalizer.scale), weights=[weight])
    output = policy.sample_actions(observe([[1.0, 0.2]]), keys(policy, 1), stopping=Stopping(60), constraint=constraint)
    np.testing.assert_allclose(output.actions[0, :, 0], SCALE * (1.0 + weight * 0.4) / (1 + weight), rtol=1e-4)
    np.testing.assert_allclose(output.actions[0, :, 1], SCALE * 0.2, rtol=1e-4)
    violation = 0.6 / (1 + weight)
    np.testing.assert_allclose(output.penalty, 6 * 0.5 * weight * violation**2, rtol=1e-3)
    np.testing.assert_allclose(output.energy, 6 * 0.5 * (0.6 - violation) ** 2, rtol=1e-3)
