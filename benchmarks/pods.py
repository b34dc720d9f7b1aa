"""Every published configuration, compiled by the TPU compiler for slices that are not here: does it fit, what does it exchange.

    python benchmarks/pods.py --output=benchmarks/results/pods.json                                         all; needs the [tpu] extra
    python benchmarks/pods.py --configs=configs/oxe.py,configs/oxe.py:xl --topologies=v5e:16x16             some

One process each (`ebt_jax.train --compile_only`). Fails where a program asked for does not compile, needs more than 90 % of its chip's
memory, or repeats a collective inside a loop. With --output, rows that are already there are kept, and judged again, where the jax
version, the command, the configuration file and the sources of `ebt_jax` are those they were compiled from; --again compiles all.
"""

import hashlib
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
from typing import Any

import jax
from absl import app, flags

from ebt_jax.training.compile import MEMORY_GB, Compiled

ROOT = pathlib.Path(__file__).parents[1]
SAMPLE = "--config.data.data_dir=bundled --config.data.mixture=metaworld_pick_place_v3"
PUBLISHED = [
    "configs/oxe.py",
    "configs/oxe.py:large",
    "configs/oxe.py:xl",
    "configs/pusht.py",
    "configs/bridge.py",
    "configs/paper.py",
    f"configs/finetune.py {SAMPLE}",
]
"""The default variant of every file, and the sizes of oxe.py; finetune.py on the sample, as its own demonstrations are in no catalogue."""

ROOM = 0.9
"""Share of a chip's memory that a program may take: the rest is for the runtime and for fragments."""

CONFIGS = flags.DEFINE_list("configs", PUBLISHED, "Configurations, 'FILE.py[:variant] [--config.key=value ...]'.")
TOPOLOGIES = flags.DEFINE_list("topologies", ["v5e:16x16", "v6e:16x16", "v5p:8x8x8"], "TPU slices.")
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the results.")
AGAIN = flags.DEFINE_bool("again", False, "Compile what the output holds already, too.")
SMALL = {"configs/pusht.py": 512, "configs/bridge.py": 512, "configs/paper.py": 512, "configs/finetune.py": 512}
"""Batch sizes for configurations of one device: a slice needs at least a sample a chip."""


def words(config: str, topology: str) -> list[str]:
    """What follows `python` in the command that compiles one."""
    file, *more = config.split()
    more += [f"--config.batch_size={SMALL[file]}"] if file in SMALL else []
    return ["-m", "ebt_jax.train", f"--config={file}", "--compile_only", f"--topology={topology}", *more]


def compile_one(config: str, topology: str) -> Compiled:
    """The result of one process. Raises RuntimeError where it fails: with its last words, or the signal that the compiler died of."""
    command = [sys.executable, *words(config, topology)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    if done.returncode < 0:
        raise RuntimeError(f"the compiler ended by {signal.Signals(-done.returncode).name}")
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("error:")] or done.stderr.splitlines()[-3:]
        raise RuntimeError(" ".join(said)[:600])
    return Compiled(**json.loads(done.stdout.splitlines()[-1]))


def origin(config: str, topology: str) -> str:
    """SHA-256 of all that a row was made from: the command, the file it names, and the package."""
    file = config.split()[0].partition(":")[0]
    sources = sorted((ROOT / "ebt_jax").rglob("*.py"))
    parts = [" ".join(words(config, topology)).encode(), *(path.read_bytes() for path in [ROOT / file, *sources])]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def complaints(row: dict[str, Any]) -> list[str]:
    """What is wrong with a program that compiles."""
    share = row["peak_bytes"] / 1e9 / MEMORY_GB[row["topology"].partition(":")[0]]
    found = [] if share <= ROOM else [f"takes {100 * share:.0f} % of the chip's memory"]
    found += [f"{row['collectives_in_loop']} collectives in a loop"] if row["collectives_in_loop"] else []
    return [f"{row['config']} on {row['topology']}: {complaint}" for complaint in found]


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['config']:24} {row['topology']:10} {row['parameters'] / 1e6:7.1f} M  batch {row['batch_size']:5}  "
        f"{row['peak_bytes'] / 1e9:6.2f} GB of {MEMORY_GB[row['topology'].partition(':')[0]]}  {row['flops'] / 1e9:9.1f} GFLOP  "
        f"in loops {row['collectives_in_loop']}  {row['collectives']}  {row['compile_seconds']:.0f} s"
    )


def main(argv: list[str]) -> None:
    path = pathlib.Path(OUTPUT.value) if OUTPUT.value else None
    versions = {"jax": jax.__version__, "libtpu": libtpu_version(), "python": platform.python_version()}
    stored = json.loads(path.read_text()) if path and path.exists() else {"versions": versions, "rows": []}
    rows = {(row["config"], row["topology"]): row for row in stored["rows"] if stored["versions"]["jax"] == versions["jax"]}
    wanted = [(config, topology) for config in CONFIGS.value for topology in TOPOLOGIES.value]
    failed = []
    for config, topology in wanted:
        made_from = origin(config, topology)
        if not AGAIN.value and rows.get((config, topology), {}).get("origin") == made_from:
            continue
        rows.pop((config, topology), None)
        try:
            compiled = compile_one(config, topology)
        except RuntimeError as error:
            failed.append(f"{config} on {topology}: {error}")
            print(failed[-1], file=sys.stderr)
        else:
            command = " ".join(["python", *words(config, topology)])
            rows[config, topology] = {"config": config, **compiled._asdict(), "command": command, "origin": made_from}
            print(line(rows[config, topology]), flush=True)
        if path:
            order = {config: number for number, config in enumerate(PUBLISHED)}
            sorted_rows = sorted(rows.values(), key=lambda row: (order.get(row["config"], len(order)), row["config"], row["topology"]))
            path.write_text(json.dumps({"versions": versions, "rows": sorted_rows}, indent=2) + "\n")
    failed += [complaint for pair in wanted if pair in rows for complaint in complaints(rows[pair])]
    print(f"{sum(pair in rows for pair in wanted)} of {len(wanted)} programs compiled, {len(failed)} complaints")
    if failed:
        sys.exit("\n".join(["error: not every configuration fits every slice:", *failed]))


def libtpu_version() -> str:
    import importlib.metadata

    return importlib.metadata.version("libtpu")


if __name__ == "__main__":
    app.run(main)
