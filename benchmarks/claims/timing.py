"""How long every contestant's samplers take on a machine that does nothing else: cells are finished beside other work.

  python -m benchmarks.claims.timing --scale=small --suite=pusht --data_dir=DIR

A call costs the same whatever was learnt, so each policy is trained for one update. Then the samplers of all contestants take turns, one
call each (`latency.py`), pinned as this process is. Writes RESULTS/latency/SCALE.json, which the page and the README show.
"""

import os
import pathlib
import tempfile
from typing import Any

import jax
from absl import flags, logging

from benchmarks.claims.cells import Cell
from benchmarks.claims.demonstrations import prepare
from benchmarks.claims.latency import BATCHES, chunk_flops, latency
from benchmarks.claims.recipe import recipe, scheduled
from benchmarks.claims.settings import FILE, Settings, read_settings
from benchmarks.claims.store import RESULTS, timing_path, write_json
from ebt_jax import cli
from ebt_jax.evaluation.results import hardware, versions
from ebt_jax.loading import load
from ebt_jax.policy import Policy
from ebt_jax.training.loop import train

QUIET = 0.5
"""Processes that may have waited or run, in the mean over the minute before."""

SECONDS = 60.0
"""Of turns at each batch size."""

_SCALE = flags.DEFINE_string("scale", "small", "Of settings.json.")
_SUITE = flags.DEFINE_string("suite", "pusht", "Whose observations and chunks.")
_DATA = flags.DEFINE_string("data_dir", None, "Folder of datasets, made there where they are missing.", required=True)
_ARCHIVES = flags.DEFINE_string("archives", os.environ.get("EBT_JAX_TEST_DATA", ""), "Folder with pusht/pusht_cchi_v7_replay.zarr.")
_RESULTS = flags.DEFINE_string("results", str(RESULTS), "Folder of results.")


def main() -> None:
    """Refuses a busy machine."""
    busy = os.getloadavg()[0]
    if busy > QUIET:
        raise RuntimeError(f"the machine must be idle, got a load of {busy:.1f} over the last minute. Wait until it is below {QUIET}.")
    settings = read_settings()
    data = pathlib.Path(_DATA.value).resolve()
    archives = pathlib.Path(_ARCHIVES.value).resolve() if _ARCHIVES.value else None
    prepare(settings.scale(_SCALE.value).suites[_SUITE.value], data, archives)
    path = timing_path(pathlib.Path(_RESULTS.value), _SCALE.value)
    write_json(
        path,
        {
            "suite": _SUITE.value,
            "settings": FILE.name,
            "settings_sha256": settings.sha256[_SCALE.value],
            "load_before": busy,
            "cores": len(os.sched_getaffinity(0)),
            "xla_flags": os.environ.get("XLA_FLAGS", ""),
            "command": f"python -m benchmarks.claims.timing --scale={_SCALE.value} --suite={_SUITE.value} --data_dir=DIR",
            "hardware": hardware(),
            "versions": versions(),
            "contestants": time_contestants(settings, _SCALE.value, _SUITE.value, data),
        },
    )
    print(path)


def time_contestants(
    settings: Settings, scale: str, suite: str, data: pathlib.Path, seconds: float = SECONDS
) -> dict[str, dict[str, dict[str, Any]]]:
    """contestant -> sampler -> {"latency_ms": of `latency`, "chunk_flops"}; samplers that stop by themselves are left out.

    Args:
      data: the folder of datasets.
      seconds: of turns at each batch size.
    """
    contestants = settings.contestants_of(scale)
    asked: dict[tuple[str, str], tuple[Policy, int]] = {}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, contestant in cli.progress(contestants.items(), len(contestants), "contestants"):
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


if __name__ == "__main__":
    cli.run(main, __doc__ or "")
