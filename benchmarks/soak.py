"""SIGKILL at random moments, many times: what comes back is what an undisturbed run computes, and little is done twice.

    python benchmarks/soak.py --kills=200 --output=benchmarks/results/soak.json

A tiny run that saves every few updates is killed and started again, until it was killed so often. Of four moments one lies in a save,
one anywhere between the start of the process and its first update, which is where it opens its data, restores and compiles, and two in
the seconds after that. A second run is left alone.

Of every life: it goes on from the newest checkpoint found at the kill before it, which its log says and its metrics show (no line up to
that step is written anew). Of every kill: the newest checkpoint is the newest one that was begun or, where the kill hit its save, the
one before. At the end: every loss and every byte of parameters, optimiser and key is that of the undisturbed run, and no temporary
folder is left.
"""

import json
import os
import pathlib
import platform
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import app, flags

from ebt_jax.checkpoint import Checkpoints
from ebt_jax.config import load, plain
from ebt_jax.training.loop import train

ROOT = pathlib.Path(__file__).parents[1]

KILLS = flags.DEFINE_integer("kills", 200, "How often a run is killed.")
INTERVAL = flags.DEFINE_integer("save_interval", 2, "Updates between checkpoints.")
STEPS = flags.DEFINE_integer("num_steps", 500, "Updates of a run; where one ends before the last kill, another begins.")
WINDOW = flags.DEFINE_float("window", 1.5, "Seconds after a life's first update in which a kill falls.")
SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the results.")

MOMENTS = ("save", "update", "start", "update")
"""What the kills hit, in turn."""


class Life(NamedTuple):
    """What one process did to the run.

    Attributes:
      moment: what its kill was to hit, of `MOMENTS`; "" where it ended by itself.
      origin: the step it went on from, 0 for a fresh start; None where it was killed before it said so.
      seconds_to_update: from its start to its first update, or to dropping the lines past its checkpoint just before; None where it was
        killed before that.
      step: the newest step in metrics.jsonl at its end.
      newest: the newest checkpoint at its end, 0 for none.
      saving: a save was under way.
      lost: its updates past that checkpoint.
    """

    moment: str
    origin: int | None
    seconds_to_update: float | None
    step: int
    newest: int
    saving: bool
    lost: int


def run(config: dict[str, Any], workdir: pathlib.Path) -> int:
    """Process id of a life of the run: a fork of this process, which has imported everything and computed nothing."""
    child = os.fork()
    if child:
        return child
    try:
        with (workdir.parent / f"{workdir.name}.log").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            jax.config.update("jax_num_cpu_devices", 1)
            jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(workdir.parent / "xla")))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
            train(config, workdir)
            os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def records(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl."""
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []


def last_step(workdir: pathlib.Path) -> int:
    """The newest step in metrics.jsonl."""
    return max((record["step"] for record in records(workdir)), default=0)


def finished(workdir: pathlib.Path) -> tuple[list[int], bool]:
    """Checkpoints on disk by name alone, and whether a save was under way."""
    names = [path.name for path in (workdir / "checkpoints").iterdir()] if (workdir / "checkpoints").is_dir() else []
    return sorted(int(name) for name in names if name.isdigit()), any(not name.isdigit() for name in names)


def live(config: dict[str, Any], workdir: pathlib.Path, moment: str = "", delay: float = 0.0) -> Life:
    """One life: started, and killed `delay` seconds after its start or its first update, or in the next save then.

    Raises:
      RuntimeError: it ended by itself with an error.
      AssertionError: it did not go on from the newest checkpoint, or left an older one than it may.
    """
    steps, _ = finished(workdir)
    before, kept, logged = steps[-1] if steps else 0, records(workdir), last_step(workdir)
    log = workdir.parent / f"{workdir.name}.log"
    said = log.stat().st_size if log.exists() else 0
    start, first = time.monotonic(), None
    child = run(config, workdir)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done and os.waitstatus_to_exitcode(status) != 0:
            raise RuntimeError(log.read_text()[-3000:])
        now = last_step(workdir)
        # A new life first drops the lines past its checkpoint, then adds its own.
        if first is None and (now < logged or (now > before and now != logged)):
            first = time.monotonic()
        since = start if moment == "start" else first
        due = moment and since is not None and time.monotonic() > since + delay
        if done or (due and (moment != "save" or all(finished(workdir)))):  # a save, with something to go back to
            break
        time.sleep(0.001 if moment == "save" else 0.005)
    if not done:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    origin = went_on_from(log, said, before, fresh=first is not None)
    if origin is not None:
        up_to = [[record for record in lines if record["step"] <= before] for lines in (kept, records(workdir))]
        assert up_to[0] == up_to[1], f"lines up to checkpoint {before} were written again"
    reached, (steps, saving) = last_step(workdir), finished(workdir)
    newest = steps[-1] if steps else 0
    begun = (reached - 1) // INTERVAL.value * INTERVAL.value  # an update is logged before its save begins
    assert done or newest >= begun - INTERVAL.value, (
        f"killed at step {reached}: the newest checkpoint is {newest}, two saves before {begun}"
    )
    seconds = None if first is None else first - start
    return Life("" if done else moment, origin, seconds, reached, newest, saving, 0 if first is None else reached - newest)


def went_on_from(log: pathlib.Path, offset: int, newest: int, fresh: bool) -> int | None:
    """The step that the life whose lines begin at byte `offset` says it went on from; None where it said nothing yet.

    `fresh`: it made an update, so saying nothing means that it began anew. Raises AssertionError where the step is not `newest`.
    """
    found = re.findall(rb"resumed at step (\d+)", log.read_bytes()[offset:])
    origin = int(found[0]) if found else 0 if fresh else None
    assert origin in (None, newest), f"a life went on from step {origin}, the newest checkpoint was {newest}"
    return origin


def losses(workdir: pathlib.Path) -> dict[int, float]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def arrays(config: dict[str, Any], workdir: pathlib.Path) -> list[bytes]:
    """The bytes of every array of the last checkpoint: parameters, their average, optimiser, key and step."""
    folder = workdir / "checkpoints" / str(config["num_steps"])
    with ocp.StandardCheckpointer() as reader:
        trees = [reader.restore(folder / name) for name in ("params", "ema_params", "training")]
    leaves = jax.tree.leaves(trees)
    return [np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf).tobytes() for leaf in leaves]


def compare(config: dict[str, Any], killed: pathlib.Path, straight: pathlib.Path) -> None:
    """Raises AssertionError where the killed run is not the undisturbed one."""
    assert losses(killed) == losses(straight), "losses differ"
    assert sorted(losses(killed)) == list(range(1, config["num_steps"] + 1)), "steps are missing"
    assert arrays(config, killed) == arrays(config, straight), "parameters, optimiser or key differ"
    steps, saving = finished(killed)
    assert not saving, "a temporary folder is left"
    with Checkpoints(killed / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps == steps


def main(argv: list[str]) -> None:
    generator = random.Random(SEED.value)
    config = plain(load(ROOT / "tests/toys/tiny.py", "regression"))
    config |= {"eval_interval": 0, "save_interval": INTERVAL.value, "keep_checkpoints": 3, "num_steps": STEPS.value}
    folder = pathlib.Path(tempfile.mkdtemp(prefix="soak"))
    start, rounds, restored, to_update = time.monotonic(), 0, 0, WINDOW.value
    lives: list[Life] = []
    while len(lives) < KILLS.value:
        rounds += 1
        killed, straight = folder / f"killed{rounds}", folder / f"straight{rounds}"
        killed.mkdir()
        straight.mkdir()
        config["seed"] = SEED.value + rounds
        while True:
            moment = MOMENTS[len(lives) % len(MOMENTS)] if len(lives) < KILLS.value else ""
            life = live(config, killed, moment, generator.uniform(0.0, to_update if moment == "start" else WINDOW.value))
            if life.origin is not None:
                restored = len(lives)  # the checkpoints of all kills so far: a life that dies before it restores leaves them as they are
            to_update = life.seconds_to_update or to_update
            if not life.moment:
                break
            lives.append(life)
            print(f"kill {len(lives)}: {life}", flush=True)
        live({**config, "save_interval": 0}, straight)
        child = os.fork()  # loading computes, and this process must not: it forks again
        if child == 0:
            try:
                compare(config, killed, straight)
                os._exit(0)
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, "the killed run is not the undisturbed one"
    result = {
        "kills": len(lives),
        "kills_during_a_save": sum(life.saving for life in lives),
        "kills_before_the_first_update": sum(life.seconds_to_update is None for life in lives),
        "restored": restored,
        "most_updates_lost": max(life.lost for life in lives),
        "more_than_one_interval_lost": sum(life.lost > INTERVAL.value for life in lives),
        "save_interval": INTERVAL.value,
        "rounds": rounds,
        "bit_equal_rounds": rounds,
        "seconds": round(time.monotonic() - start, 1),
        "seed": SEED.value,
        "hardware": f"{os.cpu_count()} CPU cores",
        "versions": {"jax": jax.__version__, "python": platform.python_version()},
        "command": "python " + " ".join(["benchmarks/soak.py", *sys.argv[1:]]),
    }
    print(json.dumps(result))
    if OUTPUT.value:
        pathlib.Path(OUTPUT.value).write_text(json.dumps(result, indent=2) + "\n")
    shutil.rmtree(folder)


if __name__ == "__main__":
    app.run(main)
