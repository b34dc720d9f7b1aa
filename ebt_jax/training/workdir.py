"""A workdir belongs to one configuration: claimed by the first run that can begin, compared with by all later ones."""

import contextlib
import fcntl
import json
import os
import pathlib
import platform
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any

import jax
from absl import logging

from ebt_jax.distributed import check_same
from ebt_jax.formats import migrate_config
from ebt_jax.training.settings import Settings
from ebt_jax.tree import flatten
from ebt_jax.whole import write_whole

LOCK = ".lock"
LOCK_SECONDS = 60.0
"""How long a run waits for the one before it, which may still be saving."""


def compare_workdir(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Makes the folder and compares with the `config.json` there, if any; of several processes the first. All compare what they got.

    The mesh may differ: a checkpoint restores onto any devices, and the mathematics is the same to rounding (1e-6 in float32), though
    no longer bit for bit. `config.json` stays as the first run wrote it; every checkpoint holds the configuration that it was made with.

    Raises:
      ValueError: another configuration lies there, or none that can be read, or another process has another one; every key that
        differs is listed.
      OSError: the folder cannot be made or read.
    """
    text = _text(config)
    if jax.process_index() == 0:
        _compare(workdir, config, text)
    check_same("configuration", text, "Start all with the same command, from the same files.")


@contextlib.contextmanager
def hold_workdir(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps a second run out, which would remove what the first is saving; of several processes the first holds it.

    The lock ends with the process, however that ends. Where the file system knows no locks a warning says so.

    Raises ValueError where another run holds it for longer than `LOCK_SECONDS`, OSError where the folder cannot be written.
    """
    if jax.process_index() != 0:
        yield
        return
    path = workdir / LOCK
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("a+"))
            _lock(file, path)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
        except OSError as error:
            raise _unwritable(workdir, error) from error
        yield


def _lock(file: IO[str], path: pathlib.Path) -> None:
    until = time.monotonic() + LOCK_SECONDS
    waiting = False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read() or "another process"
            if time.monotonic() > until:
                raise ValueError(
                    f"workdir {path.parent} must belong to one run at a time, got one that {holder} is running. Stop that, or give another "
                    f"--workdir; where it is no longer running, remove {path}."
                ) from error
            if not waiting:
                logging.info("waiting for %s, which runs in %s, to end", holder, path.parent)
            waiting = True
            time.sleep(min(1.0, LOCK_SECONDS))
        except OSError as error:
            logging.warning("%s cannot be locked (%s): see to it that no second run uses this workdir.", path, error)
            return


def claim_workdir(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Writes `config.json`, where another run has not written one meanwhile, with which it is compared; of several processes the first.

    Called once nothing is left that could be refused: a claim that never began would refuse the corrected configuration.
    Raises what `compare_workdir` does.
    """
    text = _text(config)
    if jax.process_index() == 0 and not _compare(workdir, config, text):
        try:
            write_whole(workdir / "config.json", text)
        except OSError as error:
            raise _unwritable(workdir, error) from error


def check_workdir(workdir: pathlib.Path) -> None:
    """Raises FileNotFoundError where the folder is no longer there: what is written now would go astray."""
    if not (workdir / "config.json").exists():
        raise FileNotFoundError(
            f"workdir {workdir} must stay where it is during a run, got no config.json there. Was it moved, or its disk unmounted? Bring "
            "it back and start the same command again to go on from its last checkpoint."
        )


def _text(config: Mapping[str, Any]) -> str:
    return json.dumps(config, indent=2, sort_keys=True)


def _unwritable(workdir: pathlib.Path, error: OSError) -> OSError:
    return OSError(f"workdir must be a folder that can be written, got {workdir}: {error}. Give another --workdir.")


def _compare(workdir: pathlib.Path, config: Mapping[str, Any], text: str) -> bool:
    """Whether the workdir belongs to this configuration already."""
    path = workdir / "config.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            return False
        found = json.loads(path.read_text())
    except OSError as error:
        raise _unwritable(workdir, error) from error
    except ValueError as error:
        raise ValueError(
            f"{path} must hold the configuration of its run as JSON, got something else ({error}). Copy the one of its newest checkpoint "
            "there (checkpoints/STEP/assets/config.json), or remove it where nothing was saved yet."
        ) from error
    old, new = (migrate_config(tree) for tree in (found, json.loads(text)))
    if old.get("mesh") != new.get("mesh"):
        logging.info("mesh was %s, is now %s: the same to rounding (1e-6), no longer bit for bit", old.get("mesh"), new.get("mesh"))
    found, config = ({**tree, "mesh": {}} for tree in (old, new))
    old, new = flatten(found), flatten(config)
    rows = [
        f"{key}: there {old.get(key, '(absent)')}, now {new.get(key, '(absent)')}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    if rows and not _same_settings(found, config):
        raise ValueError(
            f"workdir {workdir} must belong to the same configuration, got {len(rows)} differences:\n  " + "\n  ".join(rows) + "\n"
            "Give another --workdir, or change the configuration back to go on with this one."
        )
    return True


def _same_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether both mean the same: a key that one leaves out may have that value by default."""
    try:
        return Settings.from_dict(migrate_config(old)) == Settings.from_dict(new)
    except ValueError:
        return False
