"""How long every contestant's samplers take on a machine that does nothing else: cells are finished beside other work.

  python -m benchmarks.claims.timing --scale=small --suite=pusht --data_dir=DIR

A call costs the same whatever was learnt, so each policy is trained for one update. Then the samplers of all contestants take turns, one
call each (`latency.py`), pinned as this process is. Writes RESULTS/latency/SCALE.json, which the page and the README show.
"""

import os
import pathlib

from absl import flags

from benchmarks.claims.demonstrations import prepare
from benchmarks.claims.idle import check_idle, time_contestants
from benchmarks.claims.settings import FILE, read_settings
from benchmarks.claims.store import RESULTS, timing_path, write_json
from ebt_jax import cli
from ebt_jax.evaluation.results import hardware, versions

_SCALE = flags.DEFINE_string("scale", "small", "Of settings.json.")
_SUITE = flags.DEFINE_string("suite", "pusht", "Whose observations and chunks.")
_DATA = flags.DEFINE_string("data_dir", None, "Folder of datasets, made there where they are missing.", required=True)
_ARCHIVES = flags.DEFINE_string("archives", os.environ.get("EBT_JAX_TEST_DATA", ""), "Folder with pusht/pusht_cchi_v7_replay.zarr.")
_RESULTS = flags.DEFINE_string("results", str(RESULTS), "Folder of results.")


def main() -> None:
    """Refuses a busy machine."""
    busy = check_idle()
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
            "contestants": time_contestants(settings, _SCALE.value, _SUITE.value, data, cli.progress),
        },
    )
    print(path)


if __name__ == "__main__":
    cli.run(main, __doc__ or "")
