"""A toy whose densities are known: a fork in the plane, more or less sharp.

    a | o ~ 1/2 N(+m, s^2 I) + 1/2 N(-m, s^2 I),   m = (cos angle, sin angle),   s from .05 (blur -1) to .4 (blur 1)

The chunk is 1 x 2, so a landscape drawn on the plane is the whole truth. Observed are angle, blur and four distractors that say
nothing. Demonstrations come from blur and angle in [-1, 1] without a gap of angles, and from distractors around 0.
"""

import jax
import jax.numpy as jnp

from ebt_jax.types import Batch, Observation

ACTION_SHAPE, OBSERVED, DISTRACTORS = (1, 2), 6, 4
GAP = (0.1, 0.5)
"""Angles (in units of 1.3 rad) that no demonstration shows."""


def spread(numbers):
    """[b 6] -> [b]: s, the standard deviation around each of the two answers."""
    return 0.05 * 8.0 ** ((numbers[:, 1] + 1) / 2)


def modes(numbers):
    """[b 6] -> [2 b 1 2]: +m and -m."""
    angle = 1.3 * numbers[:, 0]
    mean = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)[:, None]
    return jnp.stack([mean, -mean])


def log_density(numbers, actions):
    """log p(a | o), [b]."""
    square = jnp.sum((actions[None] - modes(numbers)) ** 2, axis=(2, 3)) / spread(numbers)[None] ** 2
    return jax.nn.logsumexp(-square / 2, axis=0) - jnp.log(4 * jnp.pi) - 2 * jnp.log(spread(numbers))


def log_marginal(actions, draws=2048, seed=11):
    """log p(a), [b], over observations as demonstrated."""
    numbers = draw_numbers(jax.random.key(seed), draws)
    each = jax.vmap(lambda row: log_density(jnp.broadcast_to(row, (len(actions), OBSERVED)), actions))(numbers)
    return jax.nn.logsumexp(each, axis=0) - jnp.log(draws)


def draw_numbers(key, batch, *, angle=None, distractor=0.0):
    """Observed numbers [b 6] as demonstrated, or with angles in an interval of their own, or distractors moved (in their sd)."""
    angle_key, blur_key, noise_key = jax.random.split(key, 3)
    if angle is None:
        u = jax.random.uniform(angle_key, (batch,), minval=-1, maxval=1 - (GAP[1] - GAP[0]))
        angles = jnp.where(u < GAP[0], u, u + GAP[1] - GAP[0])
    else:
        angles = jax.random.uniform(angle_key, (batch,), minval=angle[0], maxval=angle[1])
    blur = jax.random.uniform(blur_key, (batch,), minval=-1, maxval=1)
    noise = 0.3 * (jax.random.normal(noise_key, (batch, DISTRACTORS)) + distractor)
    return jnp.concatenate([angles[:, None], blur[:, None], noise], axis=1)


def draw_actions(key, numbers):
    """a ~ p(a | o), [b 1 2]."""
    side_key, noise_key = jax.random.split(key)
    first = jax.random.bernoulli(side_key, 0.5, (len(numbers), 1, 1))
    pair = modes(numbers)
    return jnp.where(first, pair[0], pair[1]) + spread(numbers)[:, None, None] * jax.random.normal(noise_key, (len(numbers), *ACTION_SHAPE))


def observe(numbers):
    batch = len(numbers)
    return Observation({}, {}, numbers[:, None], jnp.zeros((batch, 0)), jnp.zeros((batch, 0), bool), jnp.ones((batch, 1), bool))


def draw(key, batch=128):
    numbers_key, actions_key = jax.random.split(key)
    numbers = draw_numbers(numbers_key, batch)
    actions = draw_actions(actions_key, numbers)
    return Batch(observe(numbers), actions, jnp.ones(actions.shape, bool))
