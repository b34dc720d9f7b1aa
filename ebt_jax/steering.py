"""What a caller asks of a descent, checked and put into the method's own units."""

import jax
import jax.numpy as jnp
import numpy as np

from ebt_jax.constraints import Constraint
from ebt_jax.execution import WarmStart
from ebt_jax.normalize import Normalizer, normalize
from ebt_jax.stopping import CAPACITY, Stopping
from ebt_jax.types import Descent, Method, Observation, Params


def check_sampler(method: Method, params: Params, observation: Observation, num_steps: int) -> None:
    """Raises ValueError for a number of steps that the method cannot sample with, from the shapes of its parameters alone."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), len(observation.proprio)))
    sample = lambda params, observation, keys: method.sample(params, method.encode(params, observation), keys, num_steps)
    jax.eval_shape(sample, params, observation, keys)


def check_request(
    method: Method,
    name: str,
    num_steps: int | None,
    stopping: Stopping | None,
    num_starts: int,
    warm_start: WarmStart | None,
    constraint: Constraint | None,
) -> None:
    """Raises ValueError for what a method of this `name` cannot do."""
    if num_steps is not None and stopping is not None:
        raise ValueError(f"num_steps must be None where stopping is given, got {num_steps}. Its cap is stopping.max_steps.")
    if num_steps is not None and num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}.")
    if num_starts < 1:
        raise ValueError(f"num_starts must be at least 1, got {num_starts}.")
    asked = {"stopping": stopping, "warm_start": warm_start, "constraint": constraint}
    steered = [word for word, value in asked.items() if value is not None]
    if steered and method.minimize is None:
        raise ValueError(
            f"{' and '.join(steered)} must be asked of a policy that descends, got method {name!r}. Use method.name=ebt or equilibrium."
        )
    needs_energy = num_starts > 1 or constraint is not None or (stopping is not None and stopping.min_energy_drop > -np.inf)
    if needs_energy and method.energy is None:
        raise ValueError(
            f"num_starts > 1, constraint and stopping.min_energy_drop must be asked of a policy with an energy, got method {name!r}."
        )
    if stopping is None and steered and num_steps is not None and not 1 <= num_steps <= CAPACITY:
        raise ValueError(f"num_steps must lie in [1, {CAPACITY}] with {' and '.join(steered)}, got {num_steps}.")


def make_descent(
    shape: tuple[int, int, int], num_steps: int, stopping: Stopping | None, warm_start: WarmStart | None, normalizer: Normalizer
) -> Descent:
    """The `Descent` of `shape` [b h a]: until `stopping` says so, or where it is None for `num_steps` at most by the method's own rule.

    Raises ValueError for a warm start of another shape, or one that commits rows it does not say, and for more steps than have room.
    """
    start, given, held = np.zeros(shape, np.float32), np.zeros(shape, bool), np.zeros(shape, bool)
    if warm_start is not None:
        actions, committed = np.asarray(warm_start.actions, np.float32), np.asarray(warm_start.committed)
        if actions.shape != shape or committed.shape != shape[:1]:
            raise ValueError(
                f"warm_start must hold actions {list(shape)} and committed {[shape[0]]}, "
                f"got {list(actions.shape)} and {list(committed.shape)}."
            )
        given = np.isfinite(actions)
        held = np.broadcast_to((np.arange(shape[1]) < committed[:, None])[:, :, None], shape)
        missing = np.flatnonzero((held & ~given).any(axis=(1, 2)))
        if missing.size:
            raise ValueError(f"warm_start.actions must be finite in committed rows, got NaN in samples {missing.tolist()}.")
        start = np.where(given, np.asarray(normalize(np.where(given, actions, 0), normalizer), np.float32), 0)
    rule = stopping or Stopping(num_steps)
    limits = (np.nan if stopping is None else rule.min_gradient, rule.min_energy_drop, rule.min_step_length)
    return Descent(*map(jnp.asarray, (start, given, held, np.int32(rule.max_steps), *map(np.float32, limits))))
