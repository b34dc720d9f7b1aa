"""How long a policy takes to answer, for each of its samplers: the call that a robot makes, from host arrays to host arrays."""

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

from ebt_jax.flops import count_flops
from ebt_jax.policy import NotFiniteError, Policy, empty_batch

K = TypeVar("K")

BATCHES = (1, 32)
SECONDS, TURNS = 2.0, 5
"""Of turns at one batch size in a cell, and the fewest of them."""


def latency(asked: Mapping[K, tuple[Policy, int]], seconds: float = SECONDS) -> dict[K, dict[str, dict[str, float]]]:
    """Name -> batch size -> {"p50", "p99", "calls", "an_action"}: milliseconds of a call, and p50 over the actions it is executed for.

    All take turns, one call each, so that a machine's bad moments fall on all alike; everything is compiled before. One call answers for
    the whole batch, and each row's chunk is executed for `execution_horizon` actions.

    Args:
      asked: each name's policy and number of steps; not empty.
      seconds: of turns at each batch size, at least `TURNS` of them.
    """
    found: dict[K, dict[str, dict[str, float]]] = {name: {} for name in asked}
    for batch_size in BATCHES:
        calls = {name: _call(policy, steps, batch_size) for name, (policy, steps) in asked.items()}
        for call in calls.values():
            call()
        times: dict[K, list[float]] = {name: [] for name in asked}
        begun, turns = time.perf_counter(), 0
        while turns < TURNS or time.perf_counter() - begun < seconds:
            for name, call in calls.items():
                times[name].append(call())
            turns += 1
        for name, taken in times.items():
            median = float(np.median(taken))
            actions = batch_size * asked[name][0].execution_horizon
            found[name][str(batch_size)] = {
                "p50": median,
                "p99": float(np.quantile(taken, 0.99)),
                "calls": len(taken),
                "an_action": median / actions,
            }
    return found


def _call(policy: Policy, steps: int, batch_size: int) -> Callable[[], float]:
    """Answers for `batch_size` observations and tells the milliseconds; an answer that is not finite takes as long as any."""
    observation = empty_batch(policy.specs, batch_size).observation
    keys = policy.sample_keys(0, np.arange(batch_size), np.zeros(batch_size, np.int64))

    def call() -> float:
        try:
            output = policy.sample_actions(observation, keys, steps)
        except NotFiniteError as error:
            output = error.output
        return 1e3 * output.seconds["total"]

    return call


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
