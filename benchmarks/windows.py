"""How fast small windows of real robot data come, and whether memory stays where it is. `loader.py` compares with tf.data.

    python benchmarks/windows.py --data_dir=$EBT_JAX_TEST_DATA/bridge --output=benchmarks/results/windows.json

Windows of two frames at 64 x 64 from real BridgeData V2 records, through the whole loader (order, reading with checksums, JPEG,
normalisation, threads), with nothing consuming them. Rates are the median of --repeats runs of --batches batches; memory is
the resident set over --memory_batches more, its slope a least-squares fit over the second half. Goals on two cores: 2,000
windows a second, and a slope that is none.
"""

import json
import os
import pathlib
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version

import numpy as np
from absl import app, flags

from ebt_jax.data import records
from ebt_jax.data.loader import make_loader
from ebt_jax.data.mixture import Mixture, open_mixture
from ebt_jax.data.order import draw
from ebt_jax.data.settings import DataSettings

DATA_DIR = flags.DEFINE_string("data_dir", os.path.join(os.environ.get("EBT_JAX_TEST_DATA", ""), "bridge"), "Folder with the dataset.")
DATASET = flags.DEFINE_string("dataset", "bridge_dataset", "Dataset to read.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Windows in a batch.")
BATCHES = flags.DEFINE_integer("batches", 100, "Batches in one repeat.")
REPEATS = flags.DEFINE_integer("repeats", 7, "Repeats, of which the median counts.")
MEMORY_BATCHES = flags.DEFINE_integer("memory_batches", 2000, "Batches over which memory is watched.")
THREADS = flags.DEFINE_list("threads", ["0", "1", "2"], "Numbers of reading threads to time; 0 reads in the caller's own.")
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the results.")


def settings(cache_dir: str, **changes) -> DataSettings:
    defaults = {"cameras": ("primary",), "image_size": 64, "observation_horizon": 2, "action_horizon": 16, "validation_folds": 5}
    return DataSettings(DATA_DIR.value, DATASET.value, cache_dir=cache_dir, **{**defaults, **changes})


def take(batches: Iterator, count: int) -> float:
    """Seconds for the next `count` batches."""
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    return time.perf_counter() - start


def rate(mixture: Mixture, threads: int, batch_size: int) -> dict:
    batches = make_loader(mixture, "train", batch_size, seed=0, num_threads=threads, prefetch=threads + 2)
    take(batches, 10)
    wall, processor = time.perf_counter(), time.process_time()
    rates = [BATCHES.value * batch_size / take(batches, BATCHES.value) for _ in range(REPEATS.value)]
    cores = (time.process_time() - processor) / (time.perf_counter() - wall)
    return {"windows_per_second": statistics.median(rates), "slowest": min(rates), "fastest": max(rates), "cores_had": cores}


def cpu_model() -> str:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def resident_mb() -> float:
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(mixture: Mixture, threads: int) -> dict:
    batches = make_loader(mixture, "train", BATCH_SIZE.value, seed=0, num_threads=threads, prefetch=threads + 2)
    seen = []
    for _ in range(MEMORY_BATCHES.value):
        next(batches)
        seen.append(resident_mb())
    settled = np.asarray(seen[len(seen) // 2 :])
    slope = np.polyfit(np.arange(len(settled)), settled, 1)[0] * 1000
    return {"batches": len(seen), "first_mb": seen[0], "last_mb": seen[-1], "peak_mb": max(seen), "slope_mb_per_1000_batches": float(slope)}


def parts(mixture: Mixture) -> dict:
    """What single steps cost, so that a slow run can be understood."""
    data = os.urandom(1 << 24)
    start = time.perf_counter()
    for _ in range(10):
        records.checksum(data)
    checksum = 10 * len(data) / (time.perf_counter() - start) / 1e9
    draw(np.arange(256), (mixture.num_transitions,), (1.0,), 0)
    start = time.perf_counter()
    for i in range(100):
        draw(np.arange(256 * i, 256 * (i + 1)), (mixture.num_transitions,), (1.0,), 0)
    order = (time.perf_counter() - start) / 100 / 256 * 1e6
    return {"checksum_gb_per_second": checksum, "order_us_per_window": order}


def main(argv: list[str]) -> None:
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        mixture = open_mixture(settings(cache))
        first_open = time.perf_counter() - start
        start = time.perf_counter()
        next(make_loader(mixture, "train", BATCH_SIZE.value, seed=0))
        first_batch = time.perf_counter() - start
        start = time.perf_counter()
        open_mixture(settings(cache))
        second_open = time.perf_counter() - start
        state_only = open_mixture(settings(cache, cameras=(), language="none"))
        load = os.getloadavg()[0]
        rows = {f"two frames, threads {threads}": rate(mixture, int(threads), BATCH_SIZE.value) for threads in THREADS.value}
        rows["state only, batch 256, threads 1"] = rate(state_only, 1, 256)
        watched = memory(mixture, int(THREADS.value[-1]))
        cost = parts(mixture)
    print(mixture.describe())
    for name, row in rows.items():
        spread = f"({row['slowest']:,.0f} to {row['fastest']:,.0f}), on {row['cores_had']:.2f} cores"
        print(f"{name:34} {row['windows_per_second']:10,.0f} windows/s  {spread}")
    print(
        f"memory {watched['first_mb']:.0f} -> {watched['last_mb']:.0f} MB over {watched['batches']} batches, "
        f"peak {watched['peak_mb']:.0f}, slope {watched['slope_mb_per_1000_batches']:+.2f} MB per 1,000 batches"
    )
    print(f"opening {first_open:.2f} s with indexing, {second_open:.3f} s from the cache; first batch after {first_batch:.3f} s")
    print(
        f"checksum {cost['checksum_gb_per_second']:.1f} GB/s, order {cost['order_us_per_window']:.2f} us a window; load before {load:.1f}"
    )
    result = {
        "hardware": f"{os.cpu_count()} cores, {cpu_model()}",
        "load_before": load,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "grain", "simplejpeg", "google-crc32c")},
        },
        "command": "python " + " ".join(["benchmarks/windows.py", *sys.argv[1:]]),
        "dataset": {"name": DATASET.value, "steps": mixture.num_transitions, "batch_size": BATCH_SIZE.value},
        "rates": rows,
        "memory": watched,
        "seconds": {"open_with_indexing": first_open, "open_from_cache": second_open, "first_batch": first_batch},
        **cost,
    }
    if OUTPUT.value:
        pathlib.Path(OUTPUT.value).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
