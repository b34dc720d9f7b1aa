"""The demonstrations of a suite, made once: people's of PushT, converted; experts' of everything else, recorded.

What experts showed for the confirmation lies in `recorded/`, as `ebt_jax.collect` wrote it: another processor's rounding would give
other demonstrations, and one confirmation may run on several machines.
"""

import dataclasses
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys

from absl import logging

from benchmarks.claims.settings import Suite
from benchmarks.claims.store import locked
from ebt_jax.data.mixture import Mixture
from ebt_jax.data.pusht import published_episodes
from ebt_jax.data.write import VERSION

SEED, NOISE = 0, 0.1
"""Of every expert: initial states, noise on what is executed (labels stay clean)."""
RECORDED = pathlib.Path(__file__).with_name("recorded")
ARCHIVE = "pusht/pusht_cchi_v7_replay.zarr"


def dataset(suite: Suite) -> str:
    """The name of the suite's dataset."""
    if not suite.shown_by_expert:
        return f"{suite.simulator}_{suite.demonstrations}" if suite.demonstrations else suite.simulator
    tasks = suite.task if len(suite.tasks) == 1 else f"{len(suite.tasks)}_tasks_{hashlib.sha256(suite.task.encode()).hexdigest()[:8]}"
    words = (suite.simulator, tasks.replace("-", "_"), str(suite.demonstrations), *suite.cameras)
    return "_".join(words).lower()


def prepare(suite: Suite, data_dir: pathlib.Path, archives: pathlib.Path | None) -> None:
    """Makes the suite's dataset in `data_dir` unless it is there, or waits for the process that makes it.

    Args:
      archives: the folder that holds `ARCHIVE`.

    Raises FileNotFoundError where people's demonstrations are needed and are not there, RuntimeError where making them fails.
    """
    made = data_dir / dataset(suite) / VERSION
    if made.exists():
        return
    with locked(data_dir / f".{dataset(suite)}.lock", wait=True):
        if not made.exists():
            _make(suite, data_dir, archives)


def data_sha256(mixture: Mixture) -> str:
    """Of names, versions, shares and specs, and of the records that train, in order: the same wherever the same data lie.

    `Mixture.manifest` would not do: its indexes are named after the times of files, and its statistics are rounded as the processor
    rounds. A spec's note of where its facts come from does not count.
    """
    identity = [
        {
            "name": dataset.folder.name,
            "version": dataset.folder.version,
            "share": dataset.weight,
            "spec": json.loads(dataclasses.replace(dataset.entry.spec, source="").to_json()),
            "episodes": dataset.train.episodes[["length", "checksum", "size"]].tolist(),
            "windows": None if dataset.train.runs is None else dataset.train.runs.tolist(),
        }
        for dataset in mixture.datasets
    ]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _make(suite: Suite, data_dir: pathlib.Path, archives: pathlib.Path | None) -> None:
    """Copied where it is recorded; else in a process of its own: writing loads TensorFlow, which training does not want beside it."""
    name = dataset(suite)
    if (RECORDED / name).exists():
        part = data_dir / f".{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(RECORDED / name, part)
        part.rename(data_dir / name)
        return
    if not suite.shown_by_expert:
        archive = archives / ARCHIVE if archives else None
        if archive is None or not archive.exists():
            raise FileNotFoundError(
                f"archives must be a folder that holds {ARCHIVE}, got {archives}. Say --archives=DIR, or put a converted "
                f"dataset {name!r} into {data_dir}."
            )
        arguments = ["ebt_jax.convert", "--source=pusht_zarr", f"--input={archive}"]
        arguments += [f"--episodes={','.join(map(str, published_episodes()))}"] if suite.demonstrations else []
    else:
        asked = [f"--tasks={','.join(suite.tasks)}", f"--episodes={suite.demonstrations}", f"--seed={SEED}", f"--noise={NOISE}"]
        asked += [f"--cameras={','.join(suite.cameras)}"] if suite.cameras else []
        arguments = ["ebt_jax.collect", f"--suite={suite.simulator}", *asked]
    logging.info("making the demonstrations of %s", suite.task)
    done = subprocess.run([sys.executable, "-m", *arguments, f"--name={name}", f"--output={data_dir}"], stdout=subprocess.PIPE)
    if done.returncode:
        raise RuntimeError(f"demonstrations of {suite.task} must be made by {' '.join(arguments)}, got exit code {done.returncode}.")
