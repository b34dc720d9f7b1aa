"""How long a policy takes to answer, for each of its samplers: the call that a robot makes, from host arrays to host arrays."""

import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ebt_jax.flops import count_flops
from ebt_jax.policy import NotFiniteError, Policy, empty_batch
from ebt_jax.types import Keys, Observation

BATCHES = (1, 32)
SECONDS, TURNS = 2.0, 5
"""Of turns at one batch size, and the fewest of them."""


def latency(policy: Policy, samplers: Mapping[str, int], seconds: float = SECONDS) -> dict[str, dict[str, dict[str, float]]]:
    """sampler -> batch size -> {"p50", "p99", "calls", "an_action"}: milliseconds of a call, and p50 over the actions it is executed for.

    Samplers take turns, one call each, so that a machine's bad moments fall on all alike; everything is compiled before. One call answers
    for the whole batch, and each row's chunk is executed for `execution_horizon` actions.
    """
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in samplers}
    for batch_size in BATCHES:
        observation = empty_batch(policy.specs, batch_size).observation
        keys = policy.sample_keys(0, np.arange(batch_size), np.zeros(batch_size, np.int64))
        times: dict[str, list[float]] = {name: [] for name in samplers}
        for steps in samplers.values():
            _milliseconds(policy, observation, keys, steps)
        begun = time.perf_counter()
        while len(times[next(iter(samplers))]) < TURNS or time.perf_counter() - begun < seconds:
            for name, steps in samplers.items():
                times[name].append(_milliseconds(policy, observation, keys, steps))
        for name, taken in times.items():
            median = float(np.median(taken))
            actions = batch_size * policy.execution_horizon
            found[name][str(batch_size)] = {
                "p50": median,
                "p99": float(np.quantile(taken, 0.99)),
                "calls": len(taken),
                "an_action": median / actions,
            }
    return found


def _milliseconds(policy: Policy, observation: Observation, keys: Keys, steps: int) -> float:
    """Of one call; an answer that is not finite takes as long as any."""
    try:
        output = policy.sample_actions(observation, keys, steps)
    except NotFiniteError as error:
        output = error.output
    return 1e3 * output.seconds["total"]


def chunk_flops(policy: Policy, samplers: Mapping[str, int]) -> dict[str, int]:
    """sampler -> operations of one chunk: one encoding, all steps, and the energy of the answer, which a policy reports."""
    observation = empty_batch(policy.specs).observation
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    params: Any = jax.eval_shape(lambda: policy.params)
    context = jax.eval_shape(policy.method.encode, params, observation)
    encode = count_flops(policy.method.encode, params, observation)
    return {
        name: encode + count_flops(lambda p, c, k, n=steps: policy.method.sample(p, c, k, n), params, context, keys)
        for name, steps in samplers.items()
    }
