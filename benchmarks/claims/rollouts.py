"""One sampler of one policy in closed loop: every episode's numbers, as columns."""

import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from benchmarks.claims.settings import Sampler, Suite
from ebt_jax.evaluation.measured import EpisodeResult
from ebt_jax.evaluation.rollouts import rollout
from ebt_jax.evaluation.vector import Environments
from ebt_jax.policy import NotFiniteError, Policy, PolicyOutput
from ebt_jax.simulators.simulator import evaluation_state
from ebt_jax.types import Keys, Observation

DIGITS = 6
"""Kept of every number."""


def evaluate(
    policy: Policy, suite: Suite, sampler: Sampler, episodes: int, seed: int, environments: Callable[[], Environments] | None = None
) -> dict[str, Any]:
    """`episodes` episodes of each task by a policy whose method has the sampler's changes, one task after the other.

    Returns {"num_steps", "change", "disturbance", "stopping", "episodes": column -> one number an episode, "seconds", "cores"}. Columns:
    state (the initial one), score (PushT: best coverage / 0.95, at most 1; else success), success, length, jitter of the executed actions
    (normalised), the simulator's own measures, and of the answers, first, mean and largest over an episode's decisions: `energy`,
    `energy_drop` and `gradient_norm` where there is an energy, `num_steps` where each rests by itself.

    A sampler with an answer that is not finite scores 0 in every episode, with nothing but states, scores and success among the columns,
    and "not_finite" says what it was.

    Args:
      environments: gives those of `open_environments`, which stay open; new ones for this call alone where None.
    """
    begun = time.perf_counter()
    measure = functools.partial(note, sampler)
    told = asked(sampler)
    try:
        found = rollout(
            policy,
            suite.simulator,
            suite.tasks,
            episodes,
            seed,
            asking=sampler.asking,
            measure=measure,
            disturbance=sampler.disturbance,
            environments=environments() if environments else None,
            keep_going=False,
        )
        told["episodes"] = columns(found.episodes)
    except NotFiniteError as error:
        states = [evaluation_state(seed, episode) for _ in suite.tasks for episode in range(episodes)]
        told |= {"not_finite": str(error), "episodes": {"state": states, "score": [0] * len(states), "success": [0] * len(states)}}
    return {**told, "seconds": time.perf_counter() - begun, "cores": os.cpu_count()}


def asked(sampler: Sampler) -> dict[str, Any]:
    """How a sampler asks, as its JSON says it."""
    wrong = {key: value for key, value in dataclasses.asdict(sampler.disturbance).items() if value}
    told = {"num_steps": sampler.num_steps, "change": dict(sampler.change), "disturbance": wrong}
    return {**told, "stopping": dict(sampler.stopping)}


def is_asked(found: Mapping[str, Any] | None, sampler: Sampler) -> bool:
    """Whether these are a sampler's rollouts, and not those of another that had its name."""
    return found is not None and {"change": {}, "disturbance": {}, "stopping": {}, **found}.items() >= asked(sampler).items()


def note(
    sampler: Sampler, policy: Policy, observation: Observation, keys: Keys, output: PolicyOutput
) -> dict[str, Float[np.ndarray, " b"]]:
    """What the answer itself says; costs nothing more."""
    steps = {"num_steps": np.asarray(output.num_steps)} if sampler.stopping else {}
    if policy.method.energy is None:
        return steps
    return {"energy": output.energy, "energy_drop": output.energy_drop, "gradient_norm": output.gradient_norm, **steps}


def columns(episodes: Sequence[EpisodeResult]) -> dict[str, list[float | None]]:
    """Column -> one number an episode, in the order of the episodes; None where it is not finite, as an energy may be."""
    table: dict[str, list[float]] = {
        "state": [one.state for one in episodes],
        "score": [one.metrics.get("score", float(one.success)) for one in episodes],
        "success": [int(one.success) for one in episodes],
        "length": [one.length for one in episodes],
        "jitter": [one.jitter for one in episodes],
    }
    for name in episodes[0].metrics:
        table[name] = [one.metrics[name] for one in episodes]
    for name in episodes[0].doubt:
        values = [one.doubt[name] for one in episodes]
        table |= {f"{name}_first": [v[0] for v in values], f"{name}_mean": [float(np.mean(v)) for v in values]}
        table[f"{name}_max"] = [max(v) for v in values]
    return {name: [_rounded(value) for value in values] for name, values in table.items()}


def _rounded(value: float) -> float | None:
    if isinstance(value, int):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
