"""What processes beside this one save of the jobs over a whole dataset: its index, and its statistics.

    python benchmarks/preparing.py --output=benchmarks/results/preparing.json

The index is of --copies times the shards of `shards.py` (links to the same files, so that the disk hardly counts), the statistics of
a column of --rows rows of 7 numbers in episodes of 40. Medians over --rounds, in which the numbers of processes take turns; starting
them counts. Whatever their number, the results must be equal.
"""

import json
import os
import pathlib
import platform
import statistics as middle
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import shards
from absl import app, flags
from etils import epath

from ebt_jax.data import jobs
from ebt_jax.data.folder import read_folder
from ebt_jax.data.index import open_index
from ebt_jax.data.oxe import describe
from ebt_jax.data.splits import Rows
from ebt_jax.data.statistics import statistics

COPIES = flags.DEFINE_integer("copies", 40, "How often the shards are indexed: 240 episodes and 0.25 GB each time.")
ROWS = flags.DEFINE_integer("rows", 40_000_000, "Rows whose statistics are taken.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds, of which the median counts.")
PROCESSES = flags.DEFINE_list("processes", ["0", "1", "2"], "Numbers of processes; 0 is none beside this one.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Folder with the shards of a run of loader.py; else they are made.")
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the results.")

EPISODE, PART, SIZE = 40, 1 << 21, 7


def multiply(data_dir: pathlib.Path, root: pathlib.Path) -> epath.Path:
    """A dataset whose shards are links to those of dataset_00, `--copies` times over."""
    old, new = data_dir / "dataset_00" / "1.0.0", root / "many" / "1.0.0"
    new.mkdir(parents=True)
    (new / "features.json").write_text((old / "features.json").read_text())
    for name in ("dataset_info.json", "ebt_spec.json"):
        tree = json.loads((old / name).read_text()) | {"name": "many"}
        for split in tree.get("splits", ()):
            split["shardLengths"] *= COPIES.value
        (new / name).write_text(json.dumps(tree))
    files = list(shards.files(str(data_dir), "dataset_00")) * COPIES.value
    for number, file in enumerate(files):
        (new / f"many-train.tfrecord-{number:05d}-of-{len(files):05d}").symlink_to(pathlib.Path(file).resolve())
    return epath.Path(new)


def index(path: epath.Path, root: pathlib.Path, runner: jobs.Runner) -> bytes:
    """Builds the index; returns its columns."""
    folder = read_folder(path)
    with tempfile.TemporaryDirectory(dir=root) as cache:
        made = open_index(folder, "train", describe(folder), cache, runner=runner).cache
        return b"".join((made / name).read_bytes() for name in ("episodes", "action", "proprio", "text", "primary"))


def summary(root: pathlib.Path, runner: jobs.Runner) -> bytes:
    """The statistics of the column."""
    file, shape = root / "column", (ROWS.value, SIZE)
    if not file.exists():
        rng = np.random.default_rng(0)
        with file.open("wb") as out:
            for first in range(0, ROWS.value, PART):
                out.write(rng.normal(size=(min(PART, ROWS.value - first), SIZE)).astype("<f4").tobytes())
    starts = np.arange(0, ROWS.value, EPISODE)
    step = PART // EPISODE
    groups = [starts[first : first + step] for first in range(0, len(starts), step)]
    parts = [Rows(str(file), "<f4", shape, group, np.minimum(EPISODE, ROWS.value - group)) for group in groups]
    found = statistics(parts, SIZE, runner)
    return np.stack([found.mean, found.std, found.min, found.max, found.q01, found.q99]).tobytes()


def measure(job: Callable[[jobs.Runner], bytes]) -> dict[str, Any]:
    """Seconds by number of processes, and whether all results were equal."""
    job(jobs.here)  # files are made, and read once
    seconds: dict[str, list[float]] = {number: [] for number in PROCESSES.value}
    results = set()
    for _ in range(ROUNDS.value):
        for number, times in seconds.items():
            start = time.perf_counter()
            results.add(job(jobs.choose(0, 0, int(number))))
            times.append(time.perf_counter() - start)
    return {"seconds": {number: middle.median(times) for number, times in seconds.items()}, "all": seconds, "equal": len(results) == 1}


def cpu_model() -> str:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main(argv: list[str]) -> None:
    del argv
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        data_dir = pathlib.Path(DATA_DIR.value or scratch)
        if not (data_dir / "dataset_00").exists():
            shards.write(data_dir, 1)
        path = multiply(data_dir, root)
        result = {
            "hardware": f"{os.cpu_count()} cores, {cpu_model()}",
            "versions": {"python": platform.python_version(), "numpy": version("numpy")},
            "load_before": os.getloadavg()[0],
            "index": {
                "gigabytes": sum(os.path.getsize(file) for file in shards.files(str(data_dir), "dataset_00")) * COPIES.value / 1e9,
                **measure(lambda runner: index(path, root, runner)),
            },
            "statistics": {"rows": ROWS.value, **measure(lambda runner: summary(root, runner))},
        }
    for name in ("index", "statistics"):
        times = ", ".join(f"{number} processes {seconds:.1f} s" for number, seconds in result[name]["seconds"].items())
        print(f"{name:10} {times}, results {'equal' if result[name]['equal'] else 'DIFFER'}")
    if OUTPUT.value:
        pathlib.Path(OUTPUT.value).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
