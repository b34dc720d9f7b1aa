"""Flow matching on straight lines (rectified flow; Liu et al. 2022, Lipman et al. 2022): learn a velocity, follow it from noise.

    x_t = (1 - t) noise + t a*,   t ~ U(0, 1),   L = |v(o, x_t, t) - (a* - noise)|^2
    a_0 ~ N(0, I),   a_{i+1} = a_i + v(o, a_i, i / n) / n

Assumes nothing of the distribution: the optimal v is the mean velocity E[a* - noise | x_t], whose flow takes N(0, I) to the
demonstrations' conditional distribution exactly, several modes included. Only the number of Euler steps n is an approximation, and it
is exact for any n where the lines do not cross (one right answer).
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ebt_jax.mcmc import MCMC, normal
from ebt_jax.methods.descent import masked_mean_square, real_actions, split, without_energy
from ebt_jax.types import Batch, Context, Keys, Method, Metrics, Params, Sample, VectorModel

SAMPLE_STEPS = 10


@dataclasses.dataclass(frozen=True)
class Flow:
    """Nothing to set: the number of steps is `sample_steps`."""

    head: ClassVar[str] = "timed_vector"
    mcmc_read: ClassVar[frozenset[str]] = frozenset()


def flow(settings: Flow, mcmc: MCMC, model: VectorModel) -> Method:
    """The method as pure functions over `model`; nothing of `mcmc` applies."""

    def loss(params: Params, batch: Batch, keys: Keys) -> tuple[Float[Array, ""], Metrics]:
        """L over the batch; masked entries of the chunk are asked for nothing."""
        context = model.encode(params, batch.observation)
        actions = real_actions(batch)
        noise_keys, time_keys = split(keys)
        noise = normal(noise_keys, actions.shape[1:], actions.dtype)
        time = jax.vmap(jax.random.uniform)(time_keys)
        between = (1 - time)[:, None, None] * noise + time[:, None, None] * actions
        velocity = model.predict(params, context, between, time)
        return jnp.mean(masked_mean_square(velocity - (actions - noise), batch.action_mask)), {}

    def sample(params: Params, context: Context, keys: Keys, num_steps: int) -> Sample:
        """`num_steps` Euler steps from each key's own noise."""
        start = normal(split(keys)[0], model.action_shape)

        def step(actions: Float[Array, "b h a"], i: Float[Array, ""]) -> tuple[Float[Array, "b h a"], Float[Array, "b h a"]]:
            velocity = model.predict(params, context, actions, jnp.full(actions.shape[0], i / num_steps))
            actions = actions + velocity / num_steps
            return actions, actions

        path = jax.lax.scan(step, start, jnp.arange(num_steps, dtype=start.dtype))[1]
        return without_energy(jnp.concatenate([start[None], path]))

    return Method(init=model.init, loss=loss, sample=sample, encode=model.encode, sample_steps=SAMPLE_STEPS)
