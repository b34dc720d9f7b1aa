"""How fast batches come and how much memory they take, beside a tf.data pipeline in Octo's manner on the same shards.

    EBT_JAX_TEST_DATA=... python benchmarks/loader.py --output=benchmarks/results/loader.json

Windows of two 256 x 256 JPEG frames resized to 224 x 224 and a chunk of 16 actions, through all of each loader, with nothing consuming
them. Every measurement is a process of its own; the pipelines take turns, and medians over --rounds count. Peak memory is
ru_maxrss. `numpy` is ours without the compiled resize. tf.data needs the [tf] extra; without it, only ours is measured. How far any
loader could go says `decode`: JPEG decoding alone, on one thread a core.

Goals on two cores: 3 times tf.data's windows a second, 120 decoded frames a second, the first batch within 10 s of opening an
unindexed dataset, a resident set that grows by at most 1 MB in 1,000 batches over 20,000 batches of one window, and at most
1,024 MB with 20 datasets in the mixture.
"""

import concurrent.futures
import json
import os
import pathlib
import platform
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
import shards
import simplejpeg
from absl import app, flags

from ebt_jax import images

BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Windows in a batch.")
BATCHES = flags.DEFINE_integer("batches", 100, "Batches in one measurement of speed.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Processes of each pipeline, of which the median counts.")
MEMORY_BATCHES = flags.DEFINE_integer("memory_batches", 20_000, "Batches of one window over which memory is watched.")
DATASETS = flags.DEFINE_integer("datasets", 20, "Datasets in the mixture whose peak memory is measured.")
SHUFFLE_BUFFER = flags.DEFINE_integer("shuffle_buffer", 5_000, "tf.data's shuffle buffer, windows; Octo's configurations take 500,000.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Folder for the shards; a temporary one where empty.")
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the results.")
ROLE = flags.DEFINE_string("role", "", "One measurement, a process of its own: ours, numpy, state, memory, decode, lanczos3 or bilinear.")
NAMES = flags.DEFINE_list("names", ["dataset_00"], "For a role: the datasets to read.")

BUDGET_MB = 1024


def ours(names: list[str], cameras: tuple[str, ...] = ("primary",), batch_size: int = 0) -> Iterator[Any]:
    """Our batches, from data that nobody has indexed."""
    from ebt_jax.data.loader import make_loader
    from ebt_jax.data.mixture import open_mixture
    from ebt_jax.data.settings import DataSettings

    with tempfile.TemporaryDirectory() as cache:
        settings = DataSettings(DATA_DIR.value, dict.fromkeys(names, 1.0), 2, 16, 224, cameras, "tokens", cache_dir=cache)
        yield from make_loader(open_mixture(settings), "train", batch_size or BATCH_SIZE.value, seed=0)


def speed(batches: Iterator[Any], batch_size: int) -> dict[str, float]:
    """Windows a second after a warm-up, seconds to the first batch, and the peak of the whole process."""
    start = time.perf_counter()
    next(batches)
    first = time.perf_counter() - start
    for _ in range(BATCHES.value // 4):
        next(batches)
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(BATCHES.value):
        next(batches)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    windows = BATCHES.value * batch_size
    return {
        "windows_per_second": windows / wall,
        "windows_per_processor_second": windows / processor,
        "first_batch_seconds": first,
        "peak_mb": peak_mb(),
    }


def peak_mb() -> float:
    """Of the resident set of this process, without what its parent had before it (which `ru_maxrss` keeps)."""
    (line,) = (line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1e3


def memory(batches: Iterator[Any]) -> dict[str, float]:
    """The resident set over many small batches; its slope is a least-squares fit over the second half."""
    page, seen, start = os.sysconf("SC_PAGE_SIZE"), [], time.perf_counter()
    for _ in range(MEMORY_BATCHES.value):
        next(batches)
        seen.append(int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * page / 1e6)
    settled = np.asarray(seen[len(seen) // 2 :])
    slope = float(np.polyfit(np.arange(len(settled)), settled, 1)[0] * 1000)
    return {
        "batches": len(seen),
        "windows_per_batch": 1,
        "first_mb": seen[0],
        "half_way_mb": seen[len(seen) // 2],
        "last_mb": seen[-1],
        "peak_mb": max(seen),
        "slope_mb_per_1000_batches": slope,
        "seconds": time.perf_counter() - start,
    }


def decode() -> dict[str, float]:
    """Frames a second on one thread a core: decoded alone, decoded and resized as the loader does, and to 112 x 112 decoded by libjpeg at
    half the size first, with what that does to the pixels (grey levels)."""
    from ebt_jax.data.example import parse, spans
    from ebt_jax.images import resize

    with open(next(shards.files(DATA_DIR.value, "dataset_00")), "rb") as file:
        record = file.read(4 + struct.unpack("<Q", file.read(8))[0])[4:]
    pictures = [record[start : start + size] for start, size in spans(record, parse(record)["steps/observation/image"])]
    cores = os.cpu_count() or 1

    def rate(job: Callable[[bytes], np.ndarray]) -> float:
        def once(_: int) -> None:
            for picture in pictures:
                job(picture)

        with concurrent.futures.ThreadPoolExecutor(cores) as pool:
            list(pool.map(once, range(cores)))
            start = time.perf_counter()
            list(pool.map(once, range(40 * cores)))
            return 40 * cores * len(pictures) / (time.perf_counter() - start)

    def whole(size: int) -> Callable[[bytes], np.ndarray]:
        return lambda picture: resize(simplejpeg.decode_jpeg(picture), size, size)

    def reduced(picture: bytes) -> np.ndarray:
        return resize(simplejpeg.decode_jpeg(picture, min_height=112, min_width=112), 112, 112)

    apart = [np.abs(whole(112)(picture).astype(int) - reduced(picture)) for picture in pictures]
    return {
        "frames_per_second": rate(simplejpeg.decode_jpeg),
        "and_resized_to_224": rate(whole(224)),
        "and_resized_to_112": rate(whole(112)),
        "decoded_at_half_size_and_resized_to_112": rate(reduced),
        "half_size_differs_by_mean": float(np.mean(apart)),
        "half_size_differs_by_at_most": float(np.max(apart)),
    }


def measure(role: str, names: list[str]) -> dict[str, float]:
    """One measurement in this process."""
    if role == "numpy":
        images.COMPILED = None
    if role in ("ours", "numpy"):
        return speed(ours(names), BATCH_SIZE.value)
    if role == "state":
        return speed(ours(names, cameras=(), batch_size=256), 256)
    if role == "memory":
        return memory(ours(names, batch_size=1))
    if role == "decode":
        return decode()
    from octo_pipeline import batches

    return speed(batches(DATA_DIR.value, names, BATCH_SIZE.value, SHUFFLE_BUFFER.value, role), BATCH_SIZE.value)


def apart(role: str, names: list[str]) -> dict[str, float]:
    """`measure` in a process of its own."""
    settings = {"data_dir": DATA_DIR.value, "role": role, "names": ",".join(names)}
    for flag in (BATCH_SIZE, BATCHES, MEMORY_BATCHES, SHUFFLE_BUFFER):
        settings[flag.name] = flag.value
    command = [sys.executable, __file__, *(f"--{name}={value}" for name, value in settings.items())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    if done.returncode:
        raise RuntimeError(f"{role} must run, got:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{role:10} {len(names):2} datasets  " + ", ".join(f"{key} {value:,.4g}" for key, value in found.items()), file=sys.stderr)
    return found


def median(rows: list[dict[str, float]]) -> dict[str, Any]:
    """The median of every number, and the spread of the first."""
    first = [row["windows_per_second"] for row in rows]
    return {**{key: statistics.median(row[key] for row in rows) for key in rows[0]}, "slowest": min(first), "fastest": max(first)}


def cpu_model() -> str:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main(argv: list[str]) -> None:
    if ROLE.value:
        print(json.dumps(measure(ROLE.value, NAMES.value)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        flags.FLAGS.data_dir = DATA_DIR.value or scratch
        data_dir = pathlib.Path(DATA_DIR.value)
        frames = shards.write(data_dir, DATASETS.value) if not (data_dir / "dataset_00").exists() else "as they were"
        size = sum(pathlib.Path(path).stat().st_size for path in shards.files(DATA_DIR.value, "dataset_00"))
        load, everything = os.getloadavg()[0], sorted(path.name for path in data_dir.iterdir() if path.name.startswith("dataset_"))
        theirs = ["bilinear", "lanczos3"] if find_spec("tensorflow") else []
        watched = apart("memory", ["dataset_00"])
        rounds: dict[str, list[dict[str, float]]] = {}
        for _ in range(ROUNDS.value):
            for role in ["ours", "numpy", *theirs]:
                rounds.setdefault(role, []).append(apart(role, ["dataset_00"]))
        speeds = {role: median(rows) for role, rows in rounds.items()}
        state, limit = apart("state", ["dataset_00"]), apart("decode", ["dataset_00"])
        mixture = {role: apart(role, everything) for role in ["ours", *theirs[:1]]}
    rate = speeds["ours"]["windows_per_second"]
    ratios = {role: rate / speeds[role]["windows_per_second"] for role in theirs}
    own = speeds["ours"]["windows_per_processor_second"]
    fair = {role: own / speeds[role]["windows_per_processor_second"] for role in theirs}  # where others use the machine too
    goals = {
        "3 times tf.data with Octo's resize (lanczos3)": ratios.get("lanczos3", float("nan")) >= 3,
        "3 times tf.data with the same resize as ours (bilinear)": ratios.get("bilinear", float("nan")) >= 3,
        "120 decoded frames a second": 2 * rate >= 120,
        "first batch within 10 s": speeds["ours"]["first_batch_seconds"] < 10,
        "at most 1 MB in 1,000 batches": watched["slope_mb_per_1000_batches"] <= 1,
        f"{len(everything)} datasets within {BUDGET_MB} MB": mixture["ours"]["peak_mb"] <= BUDGET_MB,
    }
    result = {
        "hardware": f"{os.cpu_count()} cores, {cpu_model()}",
        "load_before": load,
        "versions": {
            "python": platform.python_version(),
            "resize.c": "compiled" if images.COMPILED else "not compiled",
            **{name: version(name) for name in ("numpy", "grain", "simplejpeg", *(["tensorflow-cpu"] if theirs else []))},
        },
        "command": "python " + " ".join(["benchmarks/loader.py", *sys.argv[1:]]),
        "data": {"frames": frames, "megabytes": size / 1e6, "kilobytes_per_frame": size / 1e3 / shards.EPISODES / shards.STEPS},
        "batch_size": BATCH_SIZE.value,
        "shuffle_buffer_of_tf_data": SHUFFLE_BUFFER.value,
        "one_dataset": speeds,
        "times_as_fast_as": ratios,
        "times_as_fast_as_per_processor_second": fair,
        "state_only": state,
        "decode": {**limit, "loader_reaches": 2 * rate / limit["frames_per_second"]},
        f"{len(everything)}_datasets": mixture,
        "memory": watched,
        "goals": goals,
    }
    for role, row in speeds.items():
        rate = f"{row['windows_per_second']:8,.0f} windows/s ({row['slowest']:,.0f} to {row['fastest']:,.0f})"
        rest = f"first batch {row['first_batch_seconds']:.1f} s, peak {row['peak_mb']:,.0f} MB"
        print(f"{role:9} {rate}, {row['windows_per_processor_second']:,.0f} a processor second, {rest}")
    print(
        f"decode    {limit['frames_per_second']:,.0f} frames/s alone, of which the loader reaches {result['decode']['loader_reaches']:.2f}"
    )
    for goal, reached in goals.items():
        print(f"{'yes' if reached else 'NO':4} {goal}")
    if OUTPUT.value:
        pathlib.Path(OUTPUT.value).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
