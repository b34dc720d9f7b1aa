"""EBT: refine noise into the demonstration by descending E, and learn E through the descent (EBT-Policy, arXiv 2510.27545).

    a_0 ~ N(0, I),   a_{i+1} = a_i - alpha dE(o, a_i)/da,   L = mean_i d(a_i, a*)

The paper's d is the squared error. From a start that is independent of the demonstration its optimum is the conditional mean,
so it averages the modes of multimodal data. The energy score (Gneiting & Raftery 2007), over M starts y_1..y_M,

    mean_m |y_m - a*| - 1 / (2 M (M - 1)) sum_{m != m'} |y_m - y_m'|

is a strictly proper scoring rule: its optimum is the whole conditional distribution, with the same descent at inference.

Assumes, as `mse`, one right answer for each observation; as `energy_score`, that a descent of K steps can carry noise to every answer
(and finite first moments). Neither says anything of E off the descents' paths: its level, or its value at other chunks.
"""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ebt_jax.mcmc import MCMC, draw_num_steps, minimize_energy, normal
from ebt_jax.methods.descent import Steered, descend, masked_mean_square, split
from ebt_jax.methods.tie import Tie, add_tie
from ebt_jax.types import AnyArray, Batch, Context, EnergyModel, Keys, Method, Metrics, Params, Sample

OBJECTIVES = ("mse", "energy_score")
LOSS_STEPS = ("every", "last")


@dataclasses.dataclass(frozen=True)
class EBT(Tie):
    """Settings, and the tie's.

    Attributes:
      objective: "mse" or "energy_score".
      loss_steps: the chunks it looks at: after "every" step of the descent, averaged, or after the "last".
      num_starts: M, the descents an energy score compares.
      learn_step_size: alpha is a parameter, exp of a number that starts at log mcmc.step_size: trained, averaged and saved with
        the others.
    """

    objective: str = "mse"
    loss_steps: str = "every"
    num_starts: int = 4
    learn_step_size: bool = False
    head: ClassVar[str] = "energy"
    mcmc_read: ClassVar[frozenset[str]] = frozenset(field.name for field in dataclasses.fields(MCMC))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective not in OBJECTIVES:
            raise ValueError(f"method.objective must be one of {OBJECTIVES}, got {self.objective!r}.")
        if self.loss_steps not in LOSS_STEPS:
            raise ValueError(f"method.loss_steps must be one of {LOSS_STEPS}, got {self.loss_steps!r}.")
        if self.objective == "energy_score" and self.num_starts < 2:
            raise ValueError(f"method.num_starts must be at least 2 for the energy score, got {self.num_starts}.")


def ebt(settings: EBT, mcmc: MCMC, model: EnergyModel) -> Method:
    """The method as pure functions over `model`."""
    num_starts = settings.num_starts if settings.objective == "energy_score" else 1
    if settings.learn_step_size:
        model = _with_step_size(model, mcmc.step_size)

    def step_size(params: Params) -> Float[Array, ""] | None:
        return jnp.exp(params["log_step_size"]) if settings.learn_step_size else None

    def energy_of_starts(params: Params, context: Context, actions: Float[Array, "mb h a"]) -> Float[Array, " mb"]:
        """E of num_starts chunks for each observation, without a copy of its context for each."""
        chunks = actions.reshape(num_starts, -1, *model.action_shape)
        return jax.vmap(model.energy, (None, None, 0))(params, context, chunks).reshape(-1)

    def loss(params: Params, batch: Batch, keys: Keys) -> tuple[Float[Array, ""], Metrics]:
        """L over the batch; entries with action_mask False count for nothing, every real one for the same."""
        context = model.encode(params, batch.observation)
        limit = mcmc.num_steps + mcmc.extra_steps
        count_keys, chain_keys = split(keys)
        num_steps = draw_num_steps(mcmc, count_keys)

        start_keys = jax.vmap(lambda m: jax.vmap(jax.random.fold_in, (0, None))(chain_keys, m))(jnp.arange(num_starts))
        noise_keys, step_keys = split(start_keys.reshape(-1))
        _, trace = minimize_energy(
            functools.partial(energy_of_starts, params, context),
            normal(noise_keys, model.action_shape, batch.actions.dtype),
            mcmc,
            num_steps=limit,
            step_size=step_size(params),
            keys=step_keys,
            stop_after=jnp.tile(num_steps, num_starts),
        )
        path = trace.actions[1:].reshape(limit, num_starts, *batch.actions.shape)  # [k m b h a]
        squared_error = masked_mean_square(path - batch.actions[None, None], batch.action_mask)  # [k m b]
        metrics = {
            "mse_first": jnp.mean(squared_error[0]),
            "mse_last": jnp.mean(squared_error[-1]),
            "energy_start": jnp.mean(trace.energy[0]),
            "gradient_norm_start": jnp.mean(trace.gradient_norm[0]),
            **({"step_size": step_size(params)} if settings.learn_step_size else {}),
        }
        distances = squared_error[:, 0] if settings.objective == "mse" else energy_score(path, batch.actions, batch.action_mask)
        weights = _step_weights(settings.loss_steps, num_steps, limit)
        total = jnp.mean(jnp.sum(weights * distances, axis=0))
        return add_tie(settings, functools.partial(model.energy, params, context), batch, total, metrics)

    def sample(params: Params, context: Context, keys: Keys, num_steps: int) -> Sample:
        """`num_steps` updates from each key's own noise, without training's noise and jitter."""
        return descend(model, params, context, keys, mcmc, num_steps, step_size(params))

    minimize = Steered(model, mcmc, lambda params, cap: step_size(params))
    return Method(model.init, loss, sample, model.encode, model.energy, sample_steps=mcmc.num_steps, minimize=minimize)


def _with_step_size(model: EnergyModel, step_size: float) -> EnergyModel:
    """The model with log alpha beside its own parameters."""
    return EnergyModel(
        init=lambda key, batch: {"model": model.init(key, batch), "log_step_size": jnp.log(jnp.float32(step_size))},
        encode=lambda params, observation: model.encode(params["model"], observation),
        energy=lambda params, context, actions: model.energy(params["model"], context, actions),
        action_shape=model.action_shape,
    )


def energy_score(
    samples: Float[Array, "k m b h a"], target: Float[AnyArray, "b h a"], mask: Bool[AnyArray, "b h a"]
) -> Float[Array, "k b"]:
    """mean_m |y_m - a| - 1/(2 M (M - 1)) sum_{m != m'} |y_m - y_m'|, |.| the root mean square over the chunk's real entries.

    Unbiased in M; lower is better; minimal in expectation only where the samples have the demonstrations' distribution.
    """
    num_starts = samples.shape[1]
    to_target = jnp.mean(_root(masked_mean_square(samples - target[None, None], mask)), axis=1)
    first, second = jnp.triu_indices(num_starts, k=1)
    between = jnp.sum(_root(masked_mean_square(samples[:, first] - samples[:, second], mask)), axis=1)
    return to_target - between / (num_starts * (num_starts - 1))


def _root(square: Float[Array, "*k b"]) -> Float[Array, "*k b"]:
    """sqrt with derivative 0, not NaN, at 0 (two equal chunks, or a sample with nothing real in it)."""
    zero = square == 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, square)))


def _step_weights(loss_steps: str, num_steps: Int[Array, " b"], limit: int) -> Float[Array, "k b"]:
    """Weight of each step's chunk, summing to 1 over k: 1/N for each of a sample's N steps, or 1 for its last."""
    step, num_steps = jnp.arange(limit)[:, None], num_steps[None]
    if loss_steps == "every":
        return jnp.where(step < num_steps, 1.0 / num_steps, 0.0)
    return jnp.where(step == num_steps - 1, 1.0, 0.0)
