"""A toy with a known answer: pass an obstacle on the left or on the right, 50/50.

Chunk 8 x 2: forward along x, y = +-side sin(pi s); `side` in [0.4, 0.6] is all the observation tells. Averaging the modes
walks straight into the obstacle, .25 RMSE away from both.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ebt_jax.types import Batch, EnergyModel, Method, Observation, VectorModel

HORIZON, WIDTH = 8, 128


def modes(side):
    """[b] -> [2, b, h, a]: the two right answers."""
    s = jnp.linspace(0, 1, HORIZON)
    x = jnp.broadcast_to(2 * s - 1, (len(side), HORIZON))
    y = side[:, None] * jnp.sin(jnp.pi * s)[None]
    return jnp.stack([jnp.stack([x, y], -1), jnp.stack([x, -y], -1)])


def observe(side):
    empty = len(side)
    return Observation({}, {}, side[:, None, None], jnp.zeros((empty, 0)), jnp.zeros((empty, 0), bool), jnp.ones((empty, 1), bool))


def draw(key, batch=64):
    side_key, mode_key = jax.random.split(key)
    side = jax.random.uniform(side_key, (batch,), minval=0.4, maxval=0.6)
    left = jax.random.bernoulli(mode_key, 0.5, (batch,))
    pair = modes(side)
    actions = jnp.where(left[:, None, None], pair[0], pair[1])
    return Batch(observe(side), actions, jnp.ones(actions.shape, bool))


def mlp_init(inputs, outputs, width):
    sizes = [inputs, width, width, width, outputs]

    def init(key, batch):
        keys = jax.random.split(key, len(sizes))
        layers = zip(keys, sizes[:-1], sizes[1:], strict=False)
        return [(jax.random.normal(k, (i, o)) / jnp.sqrt(i), jnp.zeros((1, o))) for k, i, o in layers]

    return init


def mlp(params, *parts):
    x = jnp.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
    for w, b in params[:-1]:
        x = jax.nn.gelu(x @ w + b)
    return x @ params[-1][0] + params[-1][1]


def encode(params, observation):
    return observation.proprio[:, 0]


def mlp_energy(action_shape=(HORIZON, 2), observed=1, width=WIDTH):
    """E = the one output of an MLP on (chunk, the `observed` numbers of proprio)."""
    energy = lambda params, context, actions: mlp(params, actions, context)[:, 0]
    return EnergyModel(mlp_init(action_shape[0] * action_shape[1] + observed, 1, width), encode, energy, action_shape)


def mlp_vector(timed, action_shape=(HORIZON, 2), observed=1, width=WIDTH):
    """A chunk: the output of an MLP on (chunk, the `observed` numbers) and, where timed, sines and cosines of the time."""
    numbers = action_shape[0] * action_shape[1]
    waves = jnp.pi * jnp.array([[0.5, 1.0, 2.0, 4.0]])

    def predict(params, context, actions, time):
        assert (time is not None) == timed
        clock = [jnp.sin(waves * time[:, None]), jnp.cos(waves * time[:, None])] if timed else []
        return mlp(params, actions, context, *clock).reshape(actions.shape)

    return VectorModel(mlp_init(numbers + observed + 8 * timed, numbers, width), encode, predict, action_shape)


def model_for(head, *shape):
    """The MLP that a method of this head learns; `shape` as of `mlp_energy`."""
    return mlp_energy(*shape) if head == "energy" else mlp_vector(head == "timed_vector", *shape)


def train(method: Method, updates: int, learning_rate: float = 2e-3, batch: int = 64, seed: int | jax.Array = 0, draw=draw):
    """EMA-free Adam with clip 1 and a cosine to 0, all updates in one compiled scan; `draw`: (key, batch) -> Batch."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(learning_rate, updates)))
    key = jax.random.key(seed)
    params = method.init(key, draw(key, batch))

    @jax.jit
    def run(params):
        def update(carry, i):
            params, state = carry
            step_key = jax.random.fold_in(key, i)
            keys = jax.random.split(jax.random.fold_in(step_key, 1), batch)
            gradient = jax.grad(lambda p: method.loss(p, draw(step_key, batch), keys)[0])(params)
            updates_, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates_), state), None

        return jax.lax.scan(update, (params, optimizer.init(params)), jnp.arange(updates))[0][0]

    return run(params)


class Scores(NamedTuple):
    """median RMSE to the nearest mode; % averaged between them; balance of the modes (1 = even); % within .06."""

    median: float
    collapsed: float
    balance: float
    within: float


def score(method: Method, params, num_steps: int, samples: int = 512, seed: int = 1) -> Scores:
    side = jax.random.uniform(jax.random.key(seed), (samples,), minval=0.4, maxval=0.6)
    context = method.encode(params, observe(side))
    actions = method.sample(params, context, jax.random.split(jax.random.key(seed + 1), samples), num_steps).actions
    error = jnp.sqrt(jnp.mean((actions[None] - modes(side)) ** 2, axis=(2, 3)))
    nearest, which = jnp.min(error, 0), jnp.argmin(error, 0)
    peak = jnp.abs(actions[:, 3:5, 1]).mean(1) / side
    left = float(jnp.mean(which == 0))
    return Scores(
        float(jnp.median(nearest)),
        100 * float(jnp.mean(peak < 0.5)),
        2 * min(left, 1 - left),
        100 * float(np.mean(nearest < 0.06)),
    )
