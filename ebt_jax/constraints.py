"""Energies that a person writes, minimised together with the learnt one: E(o, a) + sum_j w_j C_j(a, proprio).

A constraint gives each chunk a number: 0 where it is kept, growing with the square of the violation. All arrays are in robot units.

    C = 1/2 sum ( violation / unit )^2 / c,     c the largest curvature that the sum has as a function of the actions

With the scale of the policy's actions as `unit` (`policy.action_normalizer.scale`) a constraint of weight 1 has curvature 1 at most, like
a learnt energy that steps of size 1 descend. All curvatures together must stay below 2 / step size, or the descent is not stable; with
momentum mu below (2 + 2 mu) / (1 + 2 mu) / step size. The step size is the one that is taken: `equilibrium` takes travel / (scale x steps),
and exp(E) / T multiplies it under `mcmc.energy_temperature`. Begin with weights of .5 in sum, and more steps. A penalty is a slope and not
a wall: the answer settles where it and E are in balance, nearer to the limit the greater the weight. What must never be left, the spec's
limits, the policy clips besides.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

Numbers = ArrayLike | Sequence[float]
"""One for all dimensions, or one for each."""

Constraint = Callable[[Float[Array, "b h a"], Float[Array, "b p"]], Float[Array, " b"]]
"""(actions, newest proprio) -> penalty, in robot units; row i depends on row i alone. Make it once: each new function is compiled anew."""


def bounds(low: Numbers, high: Numbers, unit: Numbers) -> Constraint:
    """Each action within [low, high]; infinite where a dimension is free."""
    low, high, unit = (_row(value) for value in (low, high, unit))

    def penalty(actions: Float[Array, "b h a"], proprio: Float[Array, "b p"]) -> Float[Array, " b"]:
        return _squares(_outside(actions, low, high), unit)

    return penalty


def velocity(limit: Numbers, unit: Numbers) -> Constraint:
    """Each action at most `limit` away from the one before, by absolute value; infinite where a dimension is free.

    For position commands at r Hz a speed v is a limit of v / r. Says nothing of the step into the chunk: for that, hold a committed prefix.
    """
    limit, unit = _row(limit), _row(unit)

    def penalty(actions: Float[Array, "b h a"], proprio: Float[Array, "b p"]) -> Float[Array, " b"]:
        return _squares(_outside(actions[:, 1:] - actions[:, :-1], -limit, limit), unit) / 4  # |a - b|^2 <= 2 a^2 + 2 b^2, twice

    return penalty


def workspace(low: Numbers, high: Numbers, unit: Numbers, actions: Sequence[int], proprio: Sequence[int] | None = None) -> Constraint:
    """Positions along the chunk within the box [low, high].

    Args:
      actions: the position's columns among the actions.
      proprio: of a policy that commands displacements, the same position's columns in the proprio: positions are then the newest one plus
        the running sum of the chunk. None where actions are positions themselves.
    """
    low, high, unit = (_row(value) for value in (low, high, unit))
    action_columns, proprio_columns = jnp.array(actions), None if proprio is None else jnp.array(proprio)

    def penalty(actions: Float[Array, "b h a"], proprio: Float[Array, "b p"]) -> Float[Array, " b"]:
        positions, curvature = actions[:, :, action_columns], 1.0
        if proprio_columns is not None:
            positions = proprio[:, None, proprio_columns] + jnp.cumsum(positions, axis=1)
            curvature = float(np.linalg.norm(np.tril(np.ones((actions.shape[1], actions.shape[1]))), 2)) ** 2
        return _squares(_outside(positions, low, high), unit) / curvature

    return penalty


def total(*constraints: Constraint, weights: Sequence[float] | None = None) -> Constraint:
    """sum_j w_j C_j; weights of 1 where none are given."""
    weights = [1.0] * len(constraints) if weights is None else weights
    if len(weights) != len(constraints) or not constraints:
        raise ValueError(f"weights must be one a constraint, and at least one, got {len(weights)} for {len(constraints)} constraints.")
    pairs = list(zip(weights, constraints, strict=True))

    def penalty(actions: Float[Array, "b h a"], proprio: Float[Array, "b p"]) -> Float[Array, " b"]:
        return sum((weight * constraint(actions, proprio) for weight, constraint in pairs), jnp.zeros(actions.shape[0]))

    return penalty


def _row(value: Numbers) -> Float[Array, "1 1 _"]:
    return jnp.atleast_1d(jnp.asarray(value, jnp.float32))[None, None]


def _outside(values: Float[Array, "b h d"], low: Float[Array, "1 1 _"], high: Float[Array, "1 1 _"]) -> Float[Array, "b h d"]:
    return jnp.maximum(values - high, 0.0) + jnp.maximum(low - values, 0.0)


def _squares(violation: Float[Array, "b h d"], unit: Float[Array, "1 1 _"]) -> Float[Array, " b"]:
    return 0.5 * jnp.sum((violation / unit) ** 2, axis=(1, 2))
