"""SIGKILL at random moments, many times: what comes back is what an undisturbed run computes, and little is done twice.

    python benchmarks/soak.py --kills=200 --output=benchmarks/results/soak.json

A tiny run that saves every few updates is killed at a moment drawn uniformly from the seconds after its first update, every fourth
time in the next save after that, and started again, until it was killed so often. A second run is left alone. After every kill: the
newest checkpoint restores, and it is the newest one that was begun or, where the kill hit its save, the one before. At the end: every
loss and every byte of the parameters is that of the undisturbed run, and no temporary folder is left.
"""

import json
import os
import pathlib
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np
from absl import app, flags

from ebt_jax.checkpoint import Checkpoints
from ebt_jax.config import load, plain
from ebt_jax.training.loop import train

ROOT = pathlib.Path(__file__).parents[1]

KILLS = flags.DEFINE_integer("kills", 200, "How often a run is killed.")
INTERVAL = flags.DEFINE_integer("save_interval", 2, "Updates between checkpoints.")
WINDOW = flags.DEFINE_float("window", 1.5, "Seconds after a life's first update in which the kill falls.")
SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the results.")


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
            jax.config.update("jax_compilation_cache_dir", str(workdir.parent / "xla"))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
            train(config, workdir)
            os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def last_step(workdir: pathlib.Path) -> int:
    """The newest step in metrics.jsonl."""
    path = workdir / "metrics.jsonl"
    whole = [line for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []
    return json.loads(whole[-1])["step"] if whole else 0


def finished(workdir: pathlib.Path) -> tuple[list[int], bool]:
    """Checkpoints on disk by name alone, and whether a save was under way."""
    names = [path.name for path in (workdir / "checkpoints").iterdir()] if (workdir / "checkpoints").is_dir() else []
    return sorted(int(name) for name in names if name.isdigit()), any(not name.isdigit() for name in names)


def live_and_die(config: dict[str, Any], workdir: pathlib.Path, moment: float, in_save: bool) -> dict[str, Any] | None:
    """One life: started, and killed `moment` seconds after its first update, or in the next save then; None where it finished first."""
    before, _ = finished(workdir)
    logged = last_step(workdir)
    child = run(config, workdir)
    first = None
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if os.waitstatus_to_exitcode(status) != 0:
                raise RuntimeError((workdir.parent / f"{workdir.name}.log").read_text()[-3000:])
            return None
        now = last_step(workdir)
        # A new life first drops the lines past its checkpoint, then adds its own.
        if first is None and (now < logged or (now > (before[-1] if before else 0) and now != logged)):
            first = time.monotonic()
        if first is not None and time.monotonic() > first + moment and (not in_save or finished(workdir)[1]):
            break
        time.sleep(0.001 if in_save else 0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    steps, saving = finished(workdir)
    reached = last_step(workdir)
    begun = (reached - 1) // INTERVAL.value * INTERVAL.value  # an update is logged before its save begins
    newest = steps[-1] if steps else 0
    if newest < begun - INTERVAL.value:
        raise AssertionError(f"killed at step {reached}: the newest checkpoint is {newest}, more than one interval before {begun}")
    return {"step": reached, "newest": newest, "saving": saving, "lost": reached - newest}


def losses(workdir: pathlib.Path) -> dict[int, float]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def parameters(config: dict[str, Any], workdir: pathlib.Path) -> list[bytes]:
    """The bytes of every array of the last checkpoint's parameters and their average."""
    from ebt_jax.loading import load as load_policy

    found = [load_policy(workdir / "checkpoints" / str(config["num_steps"]), ema=ema).params for ema in (True, False)]
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(found)]


def compare(config: dict[str, Any], killed: pathlib.Path, straight: pathlib.Path) -> None:
    """Raises AssertionError where the killed run is not the undisturbed one."""
    assert losses(killed) == losses(straight), "losses differ"
    assert sorted(losses(killed)) == list(range(1, config["num_steps"] + 1)), "steps are missing"
    assert parameters(config, killed) == parameters(config, straight), "parameters differ"
    steps, saving = finished(killed)
    assert not saving, "a temporary folder is left"
    with Checkpoints(killed / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps == steps


def main(argv: list[str]) -> None:
    generator = random.Random(SEED.value)
    config = plain(load(ROOT / "tests/toys/tiny.py", "regression"))
    config |= {"eval_interval": 0, "save_interval": INTERVAL.value, "keep_checkpoints": 3, "num_steps": 20 * max(1, min(KILLS.value, 25))}
    folder = pathlib.Path(tempfile.mkdtemp(prefix="soak"))
    start, lives, rounds = time.monotonic(), [], 0
    while len(lives) < KILLS.value:
        rounds += 1
        killed = folder / f"killed{rounds}"
        killed.mkdir()
        config["seed"] = SEED.value + rounds
        while len(lives) < KILLS.value:
            life = live_and_die(config, killed, generator.uniform(0.0, WINDOW.value), in_save=len(lives) % 4 == 3)
            if life is None:
                break
            lives.append(life)
            print(f"kill {len(lives)}: {life}", flush=True)
        straight = folder / f"straight{rounds}"
        straight.mkdir()
        for workdir in (killed, straight):
            _, status = os.waitpid(run(config, workdir), 0)
            assert os.waitstatus_to_exitcode(status) == 0, (folder / f"{workdir.name}.log").read_text()[-3000:]
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
        "kills_during_a_save": sum(life["saving"] for life in lives),
        "restored": len(lives),
        "most_updates_lost": max(life["lost"] for life in lives),
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
