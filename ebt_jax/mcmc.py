"""Inner minimisation: a few steps of a <- a - alpha dE/da over the action chunk, differentiable in whatever E closes over.

One step, with the settings' names and the paper's symbols (EBT-Policy, arXiv 2510.27545, and its authors' code):

    a    <- stop_gradient(a)                      stop_gradient
    a    <- a / rms(a)                            action_norm
    a    <- a + sigma_i normal                    noise_start, noise_end, noise_schedule; training only
    look <- a + mu v                              momentum
    g    <- dE(look) / d look
    v    <- mu v - alpha_i u exp(E) / T g         step_size, step_schedule; u ~ U[1/s, s] is step_size_jitter, training only;
    a    <- a + v                                 exp(E) / T is energy_temperature

Rows never mix: E's row i depends on chunk i alone, noise comes from one key per sample, and a sample that has stopped stands
still whatever the others do. So a chunk is the same alone, in any batch, padded or sharded.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from ebt_jax.schedules import along_descent, check_shape
from ebt_jax.types import EnergyFn, Keys

ACTION_NORMS = ("off", "first", "every")
GRADIENTS = ("saved", "recomputed", "lean")
MAX_EXPONENT = 3.0
"""exp(E) in a step size is exp(min(max(E, -3), 3)): a factor of 20 either way, where the published code lets it overflow."""


@dataclasses.dataclass(frozen=True)
class MCMC:
    """Settings of the descent; actions are normalised, so step sizes and noise are unitless.

    Attributes:
      num_steps: K, steps of the chain.
      extra_steps: in training each sample takes K + uniform{0..extra_steps} steps (`draw_num_steps`).
      step_size: alpha for an energy summed over the chunk (about 1; a mean over h x a wants h x a times as much).
      step_schedule, step_end: alpha_i goes from step_size towards step_size x step_end, "linear" or "cosine"; "constant" stays.
      step_size_jitter: s >= 1; in training alpha_i is multiplied by U[1/s, s], drawn per sample and step.
      energy_temperature: T; where positive, alpha_i is multiplied by exp(E) / T, with E at the look-ahead point, so that
        chunks of high energy move further. For energies of about 1 (a mean over the chunk). 0 leaves it out.
      momentum: mu in [0, 1); the gradient is taken at the look-ahead point.
      action_norm: divides a chunk by its own root mean square before the "first" or "every" step; "off" leaves it. Under "every",
        only chunks whose RMS is 1 can be fixed points, so a small gradient does not say that the descent has converged. What a warm
        start gives is divided likewise.
      noise_start, noise_end, noise_schedule: standard deviation added before each step in training.
      stop_gradient: no gradient between steps (every step learns alone); False unrolls the whole chain.
      stop_gradient_velocity: the same for the velocity that momentum carries.
      min_gradient: at inference; where positive, each sample stops by the published rule once its |dE/da| is no larger, and the
        number of steps is only a cap (see `minimize_energy_until`). In the unit of the energy: a sum over the chunk has h x a
        times the gradient of a mean.
      gradient: how training differentiates the descent; the numbers are the same. "saved" keeps what every step computed (fewest
        operations; memory grows with K), "recomputed" keeps each step's start and computes the rest again, "lean" takes the jvp of
        the gradient (as many operations as "recomputed", and the least memory). See docs/decisions/second-order.md.
    """

    num_steps: int = 2
    extra_steps: int = 0
    step_size: float = 1.0
    step_schedule: str = "constant"
    step_end: float = 1.0
    step_size_jitter: float = 1.0
    energy_temperature: float = 0.0
    momentum: float = 0.0
    action_norm: str = "off"
    noise_start: float = 0.0
    noise_end: float = 0.0
    noise_schedule: str = "cosine"
    stop_gradient: bool = True
    stop_gradient_velocity: bool = True
    min_gradient: float = 0.0
    gradient: str = "saved"

    def __post_init__(self) -> None:
        check_shape("mcmc.step_schedule", self.step_schedule)
        check_shape("mcmc.noise_schedule", self.noise_schedule)
        for name, holds, rule in (
            ("num_steps", self.num_steps >= 1, "be at least 1"),
            ("extra_steps", self.extra_steps >= 0, "be at least 0"),
            ("step_size", self.step_size > 0, "be positive"),
            ("step_end", self.step_end > 0, "be positive"),
            ("step_end", self.step_end == 1 or self.step_schedule != "constant", "be 1 where step_schedule is 'constant'"),
            ("step_size_jitter", self.step_size_jitter >= 1, "be at least 1"),
            ("energy_temperature", self.energy_temperature >= 0, "be at least 0"),
            ("momentum", 0 <= self.momentum < 1, "lie in [0, 1)"),
            ("action_norm", self.action_norm in ACTION_NORMS, f"be one of {ACTION_NORMS}"),
            ("noise_start", self.noise_start >= 0, "be at least 0"),
            ("noise_end", self.noise_end >= 0, "be at least 0"),
            ("min_gradient", self.min_gradient >= 0, "be at least 0"),
            ("gradient", self.gradient in GRADIENTS, f"be one of {GRADIENTS}"),
        ):
            if not holds:
                raise ValueError(f"mcmc.{name} must {rule}, got {getattr(self, name)}.")


class MCMCState(NamedTuple):
    """The chain between two steps."""

    actions: Float[Array, "b h a"]
    velocity: Float[Array, "b h a"]


class MCMCTrace(NamedTuple):
    """What happened along the chain.

    Attributes:
      actions: the start, then the chunk after each step; rows of a stopped sample repeat.
      energy: E at the point where step i took its gradient; NaN for steps not taken, except where `minimize_energy_until` looked and
        found nothing to do.
      gradient_norm: |dE/da| there, over the whole chunk; NaN likewise. Carries no gradient.
      num_steps: steps each sample took.
    """

    actions: Float[Array, "k1 b h a"]
    energy: Float[Array, "k b"]
    gradient_norm: Float[Array, "k b"]
    num_steps: Int[Array, " b"]


def energy_and_gradient(energy_fn: EnergyFn, actions: Float[Array, "b h a"]) -> tuple[Float[Array, " b"], Float[Array, "b h a"]]:
    """E and dE/da of every row: rows are independent, so the gradient of the sum is each row's own."""

    def total(actions: Float[Array, "b h a"]) -> tuple[Float[Array, ""], Float[Array, " b"]]:
        energy = energy_fn(actions)
        return jnp.sum(energy), energy

    (_, energy), gradient = jax.value_and_grad(total, has_aux=True)(actions)
    return energy, gradient


def lean_energy_and_gradient(energy_fn: EnergyFn, actions: Float[Array, "b h a"]) -> tuple[Float[Array, " b"], Float[Array, "b h a"]]:
    """`energy_and_gradient` whose own derivative keeps nothing but the arguments: forward over reverse.

    For cotangents e of E and g of dE/da, the derivative in anything theta that E reads is one jvp of a gradient:

        d/d epsilon  d/d theta  sum_i (1 + epsilon e_i) E_i(theta, a + epsilon g)     at epsilon = 0

    Args:
      energy_fn: a `functools.partial` of what it reads, which gradients then reach. Differentiated in anything it merely closes over,
        JAX raises an error.
    """
    if isinstance(energy_fn, functools.partial):
        return _lean(Partial(energy_fn.func, *energy_fn.args, **energy_fn.keywords), actions)
    return _lean(Partial(energy_fn), actions)


@jax.custom_vjp
def _lean(energy_fn: Partial, actions: Float[Array, "b h a"]) -> tuple[Float[Array, " b"], Float[Array, "b h a"]]:
    return energy_and_gradient(energy_fn, actions)


def _lean_forward(energy_fn: Partial, actions: Float[Array, "b h a"]) -> tuple[tuple[Array, Array], tuple[Partial, Array]]:
    return energy_and_gradient(energy_fn, actions), (energy_fn, actions)


def _lean_backward(arguments: tuple[Partial, Array], cotangents: tuple[Array, Array]) -> tuple[Partial, Array]:
    energy_fn, actions = arguments
    energy_cotangent, gradient_cotangent = cotangents

    def gradient(actions: Float[Array, "b h a"], weights: Float[Array, " b"]) -> tuple[Partial, Array]:
        weighted = lambda energy_fn, actions: jnp.sum(weights * energy_fn(actions))
        return jax.grad(weighted, argnums=(0, 1), allow_int=True)(energy_fn, actions)

    ones = jnp.ones_like(energy_cotangent)
    return jax.jvp(gradient, (actions, ones), (gradient_cotangent, energy_cotangent))[1]


_lean.defvjp(_lean_forward, _lean_backward)


def chunk_norm(chunk: Float[Array, "*k b h a"]) -> Float[Array, "*k b"]:
    """Euclidean norm of each chunk, as a number to look at: carries no gradient (its derivative at 0 is NaN)."""
    return jnp.sqrt(jnp.sum(jax.lax.stop_gradient(chunk) ** 2, axis=(-2, -1)))


def rms_normalize(actions: Float[Array, "b h a"]) -> Float[Array, "b h a"]:
    """a / sqrt(mean(a^2)), each chunk by its own mean: no statistic couples the rows of a batch."""
    mean_square = jnp.mean(actions**2, axis=(-2, -1), keepdims=True)
    return actions / jnp.sqrt(mean_square + jnp.finfo(actions.dtype).eps)


def mcmc_step(
    energy_fn: EnergyFn,
    state: MCMCState,
    settings: MCMC,
    step: Int[Array, " b"],
    num_steps: Int[Array, " b"],
    step_size: Float[Array, ""],
    keys: Keys | None,
) -> tuple[MCMCState, Float[Array, " b"], Float[Array, " b"]]:
    """a <- a + mu v - alpha_i dE/da: one update, its energy [b] and gradient norm [b].

    Args:
      step, num_steps: i and this sample's N, for the schedules.
      step_size: alpha; an array, so that a new value does not recompile.
      keys: one per sample for noise and jitter; None leaves both out.
    """
    actions, velocity = state
    if settings.stop_gradient:
        actions = jax.lax.stop_gradient(actions)
    if settings.stop_gradient_velocity:
        velocity = jax.lax.stop_gradient(velocity)
    if settings.action_norm == "every":
        actions = rms_normalize(actions)
    if settings.action_norm == "first":
        actions = jnp.where((step == 0)[:, None, None], rms_normalize(actions), actions)
    alpha = step_size * along_descent(settings.step_schedule, 1.0, settings.step_end, step, num_steps)
    if keys is not None:
        noise_keys, jitter_keys = jnp.moveaxis(jax.vmap(jax.random.split)(jax.vmap(jax.random.fold_in)(keys, step)), 1, 0)
        if settings.noise_start > 0 or settings.noise_end > 0:
            noise_std = along_descent(settings.noise_schedule, settings.noise_start, settings.noise_end, step, num_steps)
            actions = actions + noise_std[:, None, None] * normal(noise_keys, actions.shape[1:], actions.dtype)
        if settings.step_size_jitter > 1:
            jitter = jax.vmap(lambda key: jax.random.uniform(key, minval=1 / settings.step_size_jitter, maxval=settings.step_size_jitter))
            alpha = alpha * jitter(jitter_keys)
    differentiate = lean_energy_and_gradient if settings.gradient == "lean" else energy_and_gradient
    energy, gradient = differentiate(energy_fn, actions + settings.momentum * velocity)
    if settings.energy_temperature > 0:
        alpha = alpha * jnp.exp(jnp.clip(energy, -MAX_EXPONENT, MAX_EXPONENT)) / settings.energy_temperature
    velocity = settings.momentum * velocity - alpha[:, None, None] * gradient
    return MCMCState(actions + velocity, velocity), energy, chunk_norm(gradient)


def normal(keys: Keys, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Float[Array, "b ..."]:
    """Standard normal numbers of `shape` for each key; row i depends on keys[i] alone."""
    return jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(keys)


def draw_num_steps(settings: MCMC, keys: Keys) -> Int[Array, " b"]:
    """N ~ uniform{num_steps .. num_steps + extra_steps}, one for each key."""
    low, high = settings.num_steps, settings.num_steps + settings.extra_steps
    return jax.vmap(lambda key: jax.random.randint(key, (), low, high + 1))(keys)


def minimize_energy(
    energy_fn: EnergyFn,
    actions: Float[Array, "b h a"],
    settings: MCMC,
    *,
    num_steps: int | None = None,
    step_size: Float[Array, ""] | float | None = None,
    keys: Keys | None = None,
    stop_after: Int[Array, " b"] | None = None,
) -> tuple[Float[Array, "b h a"], MCMCTrace]:
    """`num_steps` updates from `actions` in one `lax.scan`: E is traced once, however many steps.

    Args:
      actions: the start, normalised.
      num_steps, step_size: in place of the settings' own.
      keys: one per sample turns on what belongs to training, noise and step-size jitter; None descends plainly.
      stop_after: N of each sample, at most `num_steps`; past it a sample stands still (see `draw_num_steps`).

    Returns:
      The last chunk and the trace; gradients flow through both as `settings.stop_gradient` allows.
    """
    num_steps = settings.num_steps if num_steps is None else num_steps
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}.")
    alpha = jnp.asarray(settings.step_size if step_size is None else step_size, actions.dtype)
    chosen = jnp.full(actions.shape[0], num_steps) if stop_after is None else stop_after

    def body(state: MCMCState, i: Int[Array, ""]) -> tuple[MCMCState, tuple[Array, Array, Array]]:
        step = jnp.broadcast_to(i, chosen.shape)
        moved, energy, gradient_norm = mcmc_step(energy_fn, state, settings, step, chosen, alpha, keys)
        active = step < chosen
        state = _where(active, moved, state)
        return state, (state.actions, jnp.where(active, energy, jnp.nan), jnp.where(active, gradient_norm, jnp.nan))

    if settings.gradient == "saved":
        body = jax.checkpoint(body, prevent_cse=False, policy=jax.checkpoint_policies.dots_saveable)
    if settings.gradient == "recomputed":
        body = jax.checkpoint(body, prevent_cse=False)
    state, (path, energy, gradient_norm) = jax.lax.scan(body, MCMCState(actions, jnp.zeros_like(actions)), jnp.arange(num_steps))
    return state.actions, MCMCTrace(jnp.concatenate([actions[None], path]), energy, gradient_norm, chosen)


def minimize_energy_until(
    energy_fn: EnergyFn,
    actions: Float[Array, "b h a"],
    settings: MCMC,
    *,
    tolerance: Float[Array, ""] | float,
    max_steps: int,
    min_energy_drop: Float[Array, ""] | float = -jnp.inf,
    min_step_length: Float[Array, ""] | float = 0.0,
    limit: Int[Array, ""] | None = None,
    step_size: Float[Array, ""] | float | None = None,
    final_step: Bool[Array, ""] | bool = False,
    must_move: Bool[Array, " b"] | bool = False,
) -> tuple[Float[Array, "b h a"], MCMCTrace]:
    """Descends each sample until its own |dE/da| < `tolerance`, at most `max_steps` updates, in one `lax.while_loop`.

    The loop ends when the last sample rests; a sample at rest no longer moves, so its chunk and its count do not depend on
    its neighbours. A look at the gradient that finds it small takes no step, and costs one evaluation, which the trace keeps; with
    `final_step` it takes that step and one more, as the authors' code does, so that no evaluation is spent without moving and a cap
    of 2 is always 2 steps. Not differentiable in reverse (JAX's while_loop); training uses `minimize_energy`.

    Args:
      max_steps: room in the trace, and the cap where `limit` is None.
      min_energy_drop: a sample rests, too, where the step before lowered its E by less.
      min_step_length: and where the next one would move it by less (root mean square over the chunk).
      limit: the cap, at most `max_steps`; an array, so that a new value does not recompile. Schedules run over it.
      must_move: samples that take their first step whatever the rules say of it, as noise must, which is no answer.
    """
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}.")
    alpha = jnp.asarray(settings.step_size if step_size is None else step_size, actions.dtype)
    batch = actions.shape[0]
    cap = jnp.asarray(max_steps if limit is None else limit)
    entries = actions.shape[1] * actions.shape[2]

    class Loop(NamedTuple):
        i: Int[Array, ""]
        active: Bool[Array, " b"]
        resting: Bool[Array, " b"]
        energy: Float[Array, " b"]
        state: MCMCState
        trace: MCMCTrace

    def body(loop: Loop) -> Loop:
        step = jnp.broadcast_to(loop.i, (batch,))
        moved, energy, gradient_norm = mcmc_step(energy_fn, loop.state, settings, step, jnp.broadcast_to(cap, (batch,)), alpha, None)
        length = chunk_norm(moved.actions - loop.state.actions) / jnp.sqrt(entries).astype(actions.dtype)
        small = (gradient_norm < tolerance) | (loop.energy - energy < min_energy_drop) | (length < min_step_length)
        small &= ~(jnp.asarray(must_move) & (loop.i == 0))
        active = loop.active & (~small | final_step)
        state = _where(active, moved, loop.state)
        trace = MCMCTrace(
            actions=loop.trace.actions.at[loop.i + 1].set(state.actions),
            energy=loop.trace.energy.at[loop.i].set(jnp.where(loop.active, energy, jnp.nan)),
            gradient_norm=loop.trace.gradient_norm.at[loop.i].set(jnp.where(loop.active, gradient_norm, jnp.nan)),
            num_steps=loop.trace.num_steps + active,
        )
        return Loop(loop.i + 1, active & ~loop.resting, small, energy, state, trace)

    everyone = jnp.ones(batch, bool)
    nothing = jnp.full((max_steps, batch), jnp.nan, actions.dtype)
    start = MCMCTrace(jnp.broadcast_to(actions[None], (max_steps + 1, *actions.shape)), nothing, nothing, jnp.zeros(batch, jnp.int32))
    before = jnp.full(batch, jnp.inf, actions.dtype)  # no step went before the first look
    loop = jax.lax.while_loop(
        lambda loop: jnp.any(loop.active) & (loop.i < cap),
        body,
        Loop(jnp.zeros((), jnp.int32), everyone, ~everyone, before, MCMCState(actions, jnp.zeros_like(actions)), start),
    )
    later = (jnp.arange(max_steps + 1) > loop.i)[:, None, None, None]
    path = jnp.where(later, loop.state.actions[None], loop.trace.actions)
    return loop.state.actions, loop.trace._replace(actions=path)


def _where(active: Bool[Array, " b"], new: MCMCState, old: MCMCState) -> MCMCState:
    return jax.tree.map(lambda n, o: jnp.where(active[:, None, None], n, o), new, old)
