"""How long every contestant's samplers take on a machine that does nothing else: cells are finished beside other work.

  python -m benchmarks.claims.timing --scale=small --suite=pusht --data_dir=DIR

A call costs the same whatever was learnt, so each policy is trained for one update, then asked as a cell asks it (`latency.py`), pinned as
this process is. Writes RESULTS/latency/SCALE.json, from where the page and the README take their milliseconds.
"""

import os
import pathlib
import tempfile
from typing import Any

import jax
from absl import flags, logging

from benchmarks.claims.cells import Cell
from benchmarks.claims.demonstrations import prepare
from benchmarks.claims.latency import chunk_flops, latency
from benchmarks.claims.recipe import recipe, scheduled
from benchmarks.claims.settings import FILE, read_settings
from benchmarks.claims.store import RESULTS, timing_path, write_json
from ebt_jax import cli
from ebt_jax.evaluation.results import hardware, versions
from ebt_jax.loading import load
from ebt_jax.training.loop import train

QUIET = 0.5
"""Processes that may have waited or run, in the mean over the minute before."""

_SCALE = flags.DEFINE_string("scale", "small", "Of settings.json.")
_SUITE = flags.DEFINE_string("suite", "pusht", "Whose observations and chunks.")
_DATA = flags.DEFINE_string("data_dir", None, "Folder of datasets, made there where they are missing.", required=True)
_ARCHIVES = flags.DEFINE_string("archives", os.environ.get("EBT_JAX_TEST_DATA", ""), "Folder with pusht/pusht_cchi_v7_replay.zarr.")
_RESULTS = flags.DEFINE_string("results", str(RESULTS), "Folder of results.")


def main() -> None:
    """Refuses a busy machine; one contestant after the other."""
    busy = os.getloadavg()[0]
    if busy > QUIET:
        raise RuntimeError(f"the machine must be idle, got a load of {busy:.1f} over the last minute. Wait until it is below {QUIET}.")
    settings = read_settings()
    suite = settings.scale(_SCALE.value).suites[_SUITE.value]
    data = pathlib.Path(_DATA.value).resolve()
    prepare(suite, data, pathlib.Path(_ARCHIVES.value).resolve() if _ARCHIVES.value else None)
    found: dict[str, dict[str, Any]] = {}
    contestants = settings.contestants_of(_SCALE.value)
    for name, contestant in cli.progress(contestants.items(), len(contestants), "contestants"):
        what = recipe(settings, Cell("development", _SCALE.value, _SUITE.value, name, suite.budgets[0], 0))
        steps = {sampler: asked.num_steps for sampler, asked in contestant.samplers.items() if not asked.stopping}
        with tempfile.TemporaryDirectory() as workdir:
            train(scheduled(what.config, 1, what.warmup, str(data)), pathlib.Path(workdir))
            policy = load(workdir)
        timed, operations = latency(policy, steps), chunk_flops(policy, steps)
        found[name] = {sampler: {"latency_ms": timed[sampler], "chunk_flops": operations[sampler]} for sampler in steps}
        logging.info("%s: %s", name, {sampler: round(one["1"]["p50"], 2) for sampler, one in timed.items()})
        jax.clear_caches()
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
            "contestants": found,
        },
    )
    print(path)


if __name__ == "__main__":
    cli.run(main, __doc__ or "")
