"""Every published configuration, compiled by the TPU compiler for slices that are not here: does it fit, what does it exchange.

    python benchmarks/pods.py --output=benchmarks/results/pods.json                                         all; needs the [tpu] extra
    python benchmarks/pods.py --configs=configs/oxe.py,configs/oxe.py:xl --topologies=v5e:16x16             some

One process each (`ebt_jax.train --compile_only`). Fails where a program does not compile, needs more than 90 % of its chip's memory,
or repeats a collective inside a loop. With --output, rows that are already there from the same jax version are kept unless --again.
"""

import json
import os
import pathlib
import platform
import subprocess
import sys

import jax
from absl import app, flags

from ebt_jax.training.compile import MEMORY_GB, Compiled

ROOT = pathlib.Path(__file__).parents[1]
PUBLISHED = ["configs/oxe.py", "configs/oxe.py:large", "configs/oxe.py:xl", "configs/pusht.py", "configs/bridge.py"]
ROOM = 0.9
"""Share of a chip's memory that a program may take: the rest is for the runtime and for fragments."""

CONFIGS = flags.DEFINE_list("configs", PUBLISHED, "Configurations, 'FILE.py[:variant] [--config.key=value ...]'.")
TOPOLOGIES = flags.DEFINE_list("topologies", ["v5e:16x16", "v6e:16x16", "v5p:8x8x8"], "TPU slices.")
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the results.")
AGAIN = flags.DEFINE_bool("again", False, "Compile what the output holds already, too.")
SMALL = {"configs/pusht.py": 512, "configs/bridge.py": 512}
"""Batch sizes for configurations of one device: a slice needs at least a sample a chip."""


def words(config: str, topology: str) -> list[str]:
    """What follows `python` in the command that compiles one."""
    file, *more = config.split()
    more += [f"--config.batch_size={SMALL[config]}"] if config in SMALL else []
    return ["-m", "ebt_jax.train", f"--config={file}", "--compile_only", f"--topology={topology}", *more]


def compile_one(config: str, topology: str) -> Compiled:
    """The result of one process. Raises RuntimeError with its last words where it fails."""
    command = [sys.executable, *words(config, topology)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("error:")] or done.stderr.splitlines()[-3:]
        raise RuntimeError(" ".join(said)[:600])
    return Compiled(**json.loads(done.stdout.splitlines()[-1]))


def complaints(compiled: Compiled) -> list[str]:
    """What is wrong with a program that compiles."""
    share = compiled.peak_bytes / 1e9 / MEMORY_GB[compiled.topology.partition(":")[0]]
    found = [] if share <= ROOM else [f"takes {100 * share:.0f} % of the chip's memory"]
    return found + ([f"{compiled.collectives_in_loop} collectives in a loop"] if compiled.collectives_in_loop else [])


def main(argv: list[str]) -> None:
    path = pathlib.Path(OUTPUT.value) if OUTPUT.value else None
    rows, failed = [], []
    if path and path.exists() and not AGAIN.value:
        stored = json.loads(path.read_text())
        rows = stored["rows"] if stored["versions"]["jax"] == jax.__version__ else []
    for config in CONFIGS.value:
        for topology in TOPOLOGIES.value:
            if any((row["config"], row["topology"]) == (config, topology) for row in rows):
                continue
            try:
                compiled = compile_one(config, topology)
            except RuntimeError as error:
                failed.append(f"{config} on {topology}: {error}")
                print(failed[-1], file=sys.stderr)
                continue
            failed += [f"{config} on {topology}: {complaint}" for complaint in complaints(compiled)]
            rows.append({"config": config, **compiled._asdict(), "command": " ".join(["python", *words(config, topology)])})
            print(
                f"{config:24} {topology:10} {compiled.parameters / 1e6:7.1f} M  batch {compiled.batch_size:5}  "
                f"{compiled.peak_bytes / 1e9:6.2f} GB of {MEMORY_GB[topology.partition(':')[0]]}  {compiled.flops / 1e9:9.1f} GFLOP  "
                f"in loops {compiled.collectives_in_loop}  {compiled.collectives}  {compiled.compile_seconds:.0f} s",
                flush=True,
            )
            if path:
                order = {config: number for number, config in enumerate(PUBLISHED)}
                rows.sort(key=lambda row: (order.get(row["config"], len(order)), row["config"], row["topology"]))
                versions = {"jax": jax.__version__, "libtpu": libtpu_version(), "python": platform.python_version()}
                path.write_text(json.dumps({"versions": versions, "rows": rows}, indent=2) + "\n")
    print(f"{len(rows)} programs compiled, {len(failed)} complaints")
    if failed:
        sys.exit("\n".join(["error: not every configuration fits every slice:", *failed]))


def libtpu_version() -> str:
    import importlib.metadata

    return importlib.metadata.version("libtpu")


if __name__ == "__main__":
    app.run(main)
