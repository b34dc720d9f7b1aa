"""What only an idle machine can say: how long the samplers of all contestants take, each in its turn."""

import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import jax
from absl import logging

from benchmarks.claims.cells import Cell
from benchmarks.claims.latency import BATCHES, chunk_flops, latency
from benchmarks.claims.recipe import recipe, scheduled
from benchmarks.claims.settings import Settings
from ebt_jax.loading import load
from ebt_jax.policy import Policy
from ebt_jax.training.loop import train

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]

QUIET = 0.5
"""Processes that may have waited or run, in the mean over the minute before."""

SECONDS = 60.0
"""Of turns at each batch size."""


def check_idle() -> float:
    """The load over the last minute. Raises RuntimeError where other work keeps the machine busy."""
    busy = os.getloadavg()[0]
    if busy > QUIET:
        raise RuntimeError(f"the machine must be idle, got a load of {busy:.1f} over the last minute. Wait until it is below {QUIET}.")
    return busy


def time_contestants(
    settings: Settings, scale: str, suite: str, data: pathlib.Path, progress: Progress, seconds: float = SECONDS
) -> dict[str, dict[str, dict[str, Any]]]:
    """contestant -> sampler -> {"latency_ms": of `latency`, "chunk_flops"}; samplers that stop by themselves are left out.

    Args:
      data: the folder of datasets.
      seconds: of turns at each batch size.
    """
    contestants = settings.contestants_of(scale)
    asked: dict[tuple[str, str], tuple[Policy, int]] = {}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, contestant in progress(contestants.items(), len(contestants), "contestants"):
        what = recipe(settings, Cell("development", scale, suite, name, settings.scale(scale).suites[suite].budgets[0], 0))
        with tempfile.TemporaryDirectory() as workdir:
            train(scheduled(what.config, 1, what.warmup, str(data)), pathlib.Path(workdir))
            policy = load(workdir)
        steps = {sampler: one.num_steps for sampler, one in contestant.samplers.items() if not one.stopping}
        found[name] = {sampler: {"chunk_flops": count} for sampler, count in chunk_flops(policy, steps).items()}
        asked |= {(name, sampler): (policy, num_steps) for sampler, num_steps in steps.items()}
        jax.clear_caches()
    logging.info("%d samplers take turns, %.0f s for each of the batch sizes %s", len(asked), seconds, BATCHES)
    for (name, sampler), milliseconds in latency(asked, seconds).items():
        found[name][sampler]["latency_ms"] = milliseconds
    return found
