"""One pass of the network, observation in, chunk out: the plainest baseline, and the energy score's twin without an energy.

    mse            L = |f(o, 0) - a*|^2
    energy_score   L = mean_m |y_m - a*| - 1 / (2 M (M - 1)) sum_{m != m'} |y_m - y_m'|,   y_m = f(o, z_m),  z_m ~ N(0, I)

Assumes, as `mse`, one right answer for each observation (Gaussian errors of one size): its optimum is the conditional mean, which
averages modes. As `energy_score` nothing but first moments: noise in, chunk out, its optimum is the whole conditional distribution.
What is left of `ebt` when the energy and its descent are taken away: the same network, scores and number of starts.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ebt_jax.mcmc import MCMC, normal
from ebt_jax.methods.descent import masked_mean_square, without_energy
from ebt_jax.methods.ebt import OBJECTIVES, energy_score
from ebt_jax.types import Batch, Context, Keys, Method, Metrics, Params, Sample, VectorModel


@dataclasses.dataclass(frozen=True)
class Regression:
    """Settings: the objective, and M, the chunks an energy score compares."""

    objective: str = "mse"
    num_starts: int = 4
    head: ClassVar[str] = "vector"
    mcmc_read: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(f"method.objective must be one of {OBJECTIVES}, got {self.objective!r}.")
        if self.objective == "energy_score" and self.num_starts < 2:
            raise ValueError(f"method.num_starts must be at least 2 for the energy score, got {self.num_starts}.")


def regression(settings: Regression, mcmc: MCMC, model: VectorModel) -> Method:
    """The method as pure functions over `model`; nothing of `mcmc` applies."""

    def start(keys: Keys) -> Float[Array, "b h a"]:
        if settings.objective == "mse":
            return jnp.zeros((keys.shape[0], *model.action_shape))
        return normal(keys, model.action_shape)

    def loss(params: Params, batch: Batch, keys: Keys) -> tuple[Float[Array, ""], Metrics]:
        """L over the batch; entries with action_mask False count for nothing."""
        context = model.encode(params, batch.observation)
        if settings.objective == "mse":
            error = masked_mean_square(model.predict(params, context, start(keys), None) - batch.actions, batch.action_mask)
            return jnp.mean(error), {"mse_last": jnp.mean(error)}
        start_keys = jax.vmap(lambda m: jax.vmap(jax.random.fold_in, (0, None))(keys, m))(jnp.arange(settings.num_starts))
        answers = jax.vmap(lambda keys: model.predict(params, context, start(keys), None))(start_keys)
        error = masked_mean_square(answers - batch.actions[None], batch.action_mask)
        score = energy_score(answers[None], batch.actions, batch.action_mask)
        return jnp.mean(score), {"mse_last": jnp.mean(error)}

    def sample(params: Params, context: Context, keys: Keys, num_steps: int) -> Sample:
        """f at 0, or at each key's own noise; `num_steps` must be 1."""
        if num_steps != 1:
            raise ValueError(f"num_steps must be 1 for regression, which has no steps to repeat, got {num_steps}.")
        first = start(keys)
        return without_energy(jnp.stack([first, model.predict(params, context, first, None)]))

    return Method(init=model.init, loss=loss, sample=sample, encode=model.encode)
