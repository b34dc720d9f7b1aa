"""python -m benchmarks.claims --scale=small [--phase=development] [--suites=pusht --contestants=flow,diffusion --budgets=2 --seeds=0]

Runs every cell that is not finished, or those named: cheap budgets first, all contestants at one seed before the next. A finished cell
is a JSON under --results; an unfinished one goes on where it was, under --runs. Start the same command again after an interruption
(exit code 75), or beside itself: each process takes cells that no other one runs. --list shows all cells and which are done, --dry_run
what would run and for how long.

Confirmation (--phase=confirmation) runs only from committed settings and committed code, and each cell once. The tables: python -m
benchmarks.claims.render. What is compared, and why so: benchmarks/claims/README.md.
"""

import json
import os
import pathlib

import jax
from absl import flags

from benchmarks.claims.cells import Cell, Wanted, enumerate_cells, seconds_left
from benchmarks.claims.frozen import ROOT
from benchmarks.claims.measure import Folders, finished, measure
from benchmarks.claims.settings import FILE, PHASES, read_settings
from benchmarks.claims.store import RESULTS
from ebt_jax import cli

_SCALE = flags.DEFINE_string("scale", "small", "Of settings.json.")
_PHASE = flags.DEFINE_enum("phase", "development", PHASES, "Development may look and change settings; confirmation may not.")
_SUITES = flags.DEFINE_list("suites", None, "Suites to run; all where absent.")
_CONTESTANTS = flags.DEFINE_list("contestants", None, "Contestants to run; all where absent.")
_BUDGETS = flags.DEFINE_list("budgets", None, "Core-minutes of training; all where absent.")
_SEEDS = flags.DEFINE_list("seeds", None, "Numbers of trainings, from 0; all where absent.")
_CHANGES = flags.DEFINE_multi_string("change", [], "KEY=JSON: another value in the training's configuration, a trial; development only.")
_SWEEP = flags.DEFINE_bool("sweep", False, "Ask every contestant that has a sweep with those steps and step sizes, too; development only.")
_LIST = flags.DEFINE_bool("list", False, "Show the cells and which are finished, and stop.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Show what would run, and stop.")
_RESULTS = flags.DEFINE_string("results", str(RESULTS), "Folder of finished cells.")
_RUNS = flags.DEFINE_string("runs", "runs/claims", "Folder of unfinished ones.")
_DATA = flags.DEFINE_string("data_dir", "", "Folder of datasets, made there where they are missing; RUNS/data where empty.")
_ARCHIVES = flags.DEFINE_string("archives", os.environ.get("EBT_JAX_TEST_DATA", ""), "Folder with pusht/pusht_cchi_v7_replay.zarr.")
_SETTINGS = flags.DEFINE_string("settings", str(FILE), "The settings; confirmation takes its own file alone.")


def main() -> None:
    settings, phase = read_settings(pathlib.Path(_SETTINGS.value)), _PHASE.value
    changes = dict(map(_change, _CHANGES.value))
    cells = enumerate_cells(settings, phase, _SCALE.value, _wanted())
    if not cells:
        raise flags.ValidationError(f"--phase must be one that a suite of scale {_SCALE.value!r} has, got {phase!r}. Try the other one.")
    runs = pathlib.Path(_RUNS.value).resolve()
    folders = Folders(
        results=pathlib.Path(_RESULTS.value).resolve(),
        runs=runs,
        data=pathlib.Path(_DATA.value).resolve() if _DATA.value else runs / "data",
        archives=pathlib.Path(_ARCHIVES.value).resolve() if _ARCHIVES.value else None,
    )
    done = {cell: tree for cell in cells if (tree := finished(folders, settings, cell, changes, _SWEEP.value)) is not None}
    pending = [cell for cell in cells if cell not in done]
    taken = {cell: tree["seconds"] for cell, tree in done.items()}
    if _LIST.value or _DRY_RUN.value:
        show(cells if _LIST.value else pending, done)
        print(f"{len(done)} of {len(cells)} finished; {_words(seconds_left(pending, taken, os.cpu_count() or 1))} to go, estimated")
        return
    if phase == "confirmation":
        _check_confirmation(folders)
    jax.config.update(
        "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path.home() / ".cache/ebt_jax/xla"))
    )
    for number, cell in enumerate(pending):
        left = seconds_left(pending[number:], taken, os.cpu_count() or 1)
        print(f"[{len(done) + number + 1} of {len(cells)}, about {_words(left)} left] {cell}", flush=True)
        path = measure(folders, settings, cell, cli.progress, changes, _SWEEP.value)
        if path is None:
            print("left to another process, which runs it", flush=True)
            continue
        tree = json.loads(path.read_text())
        taken[cell] = tree["seconds"]
        print(f"{outcome(tree)} in {_words(taken[cell])}: {path}", flush=True)
    print(f"{len(taken)} of {len(cells)} cells are finished")


def _check_confirmation(folders: Folders) -> None:
    """There is one place for it, so that nobody confirms twice and shows the better one."""
    if _SWEEP.value:
        raise flags.ValidationError("--sweep must be left out of a confirmation, which asks each policy as the settings say.")
    if pathlib.Path(_SETTINGS.value).resolve() != FILE.resolve():
        raise flags.ValidationError(f"--settings must be {FILE.name} beside the code for confirmation, got {_SETTINGS.value}.")
    for flag, folder, own in ((_RESULTS, folders.results, RESULTS), (_RUNS, folders.runs, ROOT / _RUNS.default)):
        if folder != own.resolve():
            raise flags.ValidationError(f"--{flag.name} must be left at {own} for confirmation, got {folder}. Leave it out.")


def show(cells: list[Cell], done: dict[Cell, dict]) -> None:
    """A line a cell."""
    for cell in cells:
        print(f"{'done   ' if cell in done else 'missing'}  {cell}{'  ' + outcome(done[cell]) if cell in done else ''}")


def outcome(tree: dict) -> str:
    """A finished cell in words."""
    if "diverged" in tree:
        return "diverged"
    scores = {name: found["episodes"]["score"] for name, found in tree["samplers"].items()}
    return "score " + ", ".join(f"{name}: {sum(score) / len(score):.2f}" for name, score in scores.items())


def _wanted() -> Wanted:
    def numbers(flag: flags.FlagHolder) -> tuple[int, ...] | None:
        try:
            return tuple(map(int, flag.value)) if flag.value else None
        except ValueError as error:
            raise flags.ValidationError(f"--{flag.name} must be whole numbers, got {','.join(flag.value)}.") from error

    def names(flag: flags.FlagHolder) -> tuple[str, ...] | None:
        return tuple(flag.value) if flag.value else None

    return Wanted(names(_SUITES), names(_CONTESTANTS), numbers(_BUDGETS), numbers(_SEEDS))


def _change(text: str) -> tuple[str, object]:
    key, _, value = text.partition("=")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError as error:
        raise flags.ValidationError(f"--change must be KEY=JSON, as optimizer.learning_rate=3e-4, got {text!r}.") from error


def _words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    cli.run(main, __doc__ or "")
