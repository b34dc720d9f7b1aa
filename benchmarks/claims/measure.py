"""One cell from nothing to its JSON: train, ask every sampler in closed loop, time it. Killed at any moment, it goes on where it was.

What is done so far lies in a folder of its own: `checkpoints/` of the training, which resumes from the newest; `training.json` once that is
done; `rollouts/SAMPLER.json` of each sampler once that is.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import resource
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from benchmarks.claims.cells import Cell, evaluation_seed, parts, result_path, run_path
from benchmarks.claims.demonstrations import data_sha256, prepare
from benchmarks.claims.frozen import frozen_commit, sources
from benchmarks.claims.latency import chunk_flops, latency
from benchmarks.claims.provenance import COMMIT, SOURCES, disagreements, fixed, here
from benchmarks.claims.recipe import Recipe, affordable, changed, recipe, scheduled, stages, update_flops
from benchmarks.claims.rollouts import evaluate, is_asked
from benchmarks.claims.settings import FILE, Sampler, Settings, Suite, read_settings
from benchmarks.claims.store import first_result, locked, write_json
from ebt_jax.checkpoint import finished_steps
from ebt_jax.data.mixture import open_mixture
from ebt_jax.evaluation.results import hardware, versions
from ebt_jax.evaluation.rollouts import open_environments
from ebt_jax.evaluation.vector import Environments
from ebt_jax.loading import load
from ebt_jax.policy import Policy
from ebt_jax.training import settings as training
from ebt_jax.training.loop import train
from ebt_jax.training.metrics import account
from ebt_jax.training.optimizer import parameter_count
from ebt_jax.training.trained import acting

Progress = Callable[..., Any]

PRETRAINING = "pretraining"
"""Folder of a first stage, in the run's."""
SPENT = ("seconds", "update_seconds", "compile_seconds", "cpu_seconds")

_REMEDY = "Bring back the run folder that the file came from, or move the file away to train the cell anew."


class Folders(NamedTuple):
    """Where things lie: finished cells, unfinished ones, datasets, and archives that datasets are made from."""

    results: pathlib.Path
    runs: pathlib.Path
    data: pathlib.Path
    archives: pathlib.Path | None


def finished(
    folders: Folders, settings: Settings, cell: Cell, changes: Mapping[str, Any] | None = None, sweep: bool = False
) -> dict[str, Any] | None:
    """The cell's JSON, if it is there and nothing is missing in it.

    Raises ValueError for a confirmation cell that was run from other settings, or otherwise than the first: there is one confirmation.
    """
    what = recipe(settings, cell, changes, sweep)
    path = result_path(folders.results, cell, what.trial)
    if not path.exists():
        return None
    tree = json.loads(path.read_text())
    if "diverged" not in tree and not all(is_asked(tree["samplers"].get(name), sampler) for name, sampler in what.samplers.items()):
        return None
    if cell.phase == "confirmation" and tree["settings_sha256"] != settings.sha256[cell.scale]:
        raise ValueError(
            f"{path} must come from settings.json as it is, got one from another. Confirmation runs once: change the file back, or start "
            "a new comparison with cells that nobody has seen."
        )
    if cell.phase == "confirmation":
        _check_alike((str(cell), tree), *_first(folders, cell))
    return tree


def measure(
    folders: Folders,
    settings: Settings,
    cell: Cell,
    progress: Progress,
    changes: Mapping[str, Any] | None = None,
    sweep: bool = False,
) -> pathlib.Path | None:
    """Runs what of the cell is not done yet, and writes its JSON; where. None while another process runs it.

    A training whose loss is no longer finite is a result, too: a cell without samplers that says so under "diverged".

    Args:
      sweep: ask the samplers of the contestant's sweep, too.

    Raises ValueError where another training would take the place of a finished cell's: code, machine or data may have changed since. In
    a confirmation, also where settings or code are not as they were committed (see `frozen_commit`), or where they, packages or XLA's
    flags are not those of the first finished cell, or of what was done of this one.
    """
    what = recipe(settings, cell, changes, sweep)
    workdir, path = run_path(folders.runs, cell, what.trial), result_path(folders.results, cell, what.trial)
    with locked(workdir / "lock") as ours:
        if not ours:
            return None
        if finished(folders, settings, cell, changes, sweep) is None:
            write_json(path, _measured(folders, settings, cell, what, progress, changes))
            jax.clear_caches()
    return path


def _measured(
    folders: Folders,
    settings: Settings,
    cell: Cell,
    what: Recipe,
    progress: Progress,
    changes: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The cell's JSON, once what is missing of it has been run."""
    begun = time.perf_counter()
    commit = _freeze(folders, settings, cell, what) if cell.phase == "confirmation" else ""
    workdir, path = run_path(folders.runs, cell, what.trial), result_path(folders.results, cell, what.trial)
    earlier = json.loads(path.read_text()) if path.exists() else None
    if earlier is not None and not (workdir / "training.json").exists():
        raise ValueError(
            f"{path} must be added to from its own training, parameters_sha256 {earlier.get('parameters_sha256')} of "
            f"commit {earlier['training']['trained_at']}, got no finished training in {workdir}, and another would be of commit {COMMIT}. "
            f"{_REMEDY}"
        )
    suite, _ = parts(settings, cell)
    prepare(suite, folders.data, folders.archives)
    trained = train_cell(what, workdir, folders.data, progress)
    policy = None if "diverged" in trained else load(workdir)
    parameters = policy.identity.sha256 if policy else None
    if earlier is not None and earlier.get("parameters_sha256") != parameters:
        raise ValueError(
            f"{path} must be added to from its own training, parameters_sha256 {earlier.get('parameters_sha256')}, got "
            f"parameters_sha256 {parameters} in {workdir}. {_REMEDY}"
        )
    tree: dict[str, Any] = {
        "cell": cell._asdict(),
        "trial": what.trial,
        "changes": dict(changes or {}),
        "frozen": commit,
        "settings_sha256": settings.sha256[cell.scale],
        "sources": SOURCES,
        **trained,
        "samplers": earlier["samplers"] if earlier else {},
    }
    if policy is not None:
        missing = {name: sampler for name, sampler in what.samplers.items() if not is_asked(tree["samplers"].get(name), sampler)}
        with contextlib.ExitStack() as stack:
            environments = functools.cache(lambda: stack.enter_context(open_environments(policy, suite.simulator)))  # where one is asked
            for name, sampler in missing.items():
                ask = functools.partial(_ask, folders, settings, cell, what, sampler, environments)
                tree["samplers"][name] = found = _answers(workdir, name, sampler, policy, suite, ask)
                logging.info("%s, %s: mean score %.3f of %d episodes", cell, name, np.mean(found["episodes"]["score"]), what.episodes)
        steps = {name: sampler.num_steps for name, sampler in parts(settings, cell)[1].samplers.items() if not sampler.stopping}
        timed = latency({name: (policy, asked_steps) for name, asked_steps in steps.items()})
        operations = chunk_flops(policy, steps)
        for name in steps:
            tree["samplers"][name] |= {"latency_ms": timed[name], "chunk_flops": operations[name]}
        tree |= {"parameters": parameter_count(policy.params), "parameters_sha256": parameters}
    timed_on = {"xla_flags": os.environ.get("XLA_FLAGS", ""), "load": os.getloadavg()[2]}
    tree |= {"hardware": hardware() | timed_on, "versions": versions()}
    return {**tree, "seconds": _spent(workdir, time.perf_counter() - begun)}


def _ask(
    folders: Folders,
    settings: Settings,
    cell: Cell,
    what: Recipe,
    sampler: Sampler,
    environments: Callable[[], Environments],
    policy: Policy,
) -> dict[str, Any]:
    """A sampler's episodes."""
    suite, seed = parts(settings, cell)[0], evaluation_seed(settings, cell)
    return evaluate(changed_policy(policy, what, sampler, str(folders.data)), suite, sampler, what.episodes, seed, environments)


def _answers(
    workdir: pathlib.Path, name: str, sampler: Sampler, policy: Policy, suite: Suite, ask: Callable[[Policy], dict[str, Any]]
) -> dict[str, Any]:
    """A sampler's rollouts, from their file in the run folder where that is there, of the checkpoints, too, where the suite wants them."""
    path = workdir / "rollouts" / f"{name}.json"
    if not path.exists() or not is_asked(json.loads(path.read_text()), sampler):
        answers = ask(policy)
        if suite.checkpoints > 1:
            answers["checkpoints"] = by_checkpoint(workdir, ask, answers)
        write_json(path, {**answers, "evaluated_at": COMMIT, **here()})
    return json.loads(path.read_text())


def _freeze(folders: Folders, settings: Settings, cell: Cell, what: Recipe) -> str:
    """The commit of a confirmation's settings; see `measure` for what is refused."""
    commit = frozen_commit(FILE)
    ours = {"settings_sha256": settings.sha256[cell.scale], "sources": SOURCES, **here()}
    committed = {**ours, "settings_sha256": read_settings(FILE).sha256[cell.scale], "sources": sources()}
    path = run_path(folders.runs, cell, what.trial) / "frozen.json"
    begun = json.loads(path.read_text()) if path.exists() else ours
    _check_alike(("this process", ours), ("the newest commit", committed), (f"what was begun of {cell}", begun), *_first(folders, cell))
    write_json(path, begun)
    return commit


def _first(folders: Folders, cell: Cell) -> list[tuple[str, dict[str, Any]]]:
    """The first finished cell of a cell's phase and scale, with its name; none where none is finished."""
    tree = first_result(folders.results, cell.phase, cell.scale)
    return [] if tree is None else [(str(Cell(**tree["cell"])), tree)]


def _check_alike(*trees: tuple[str, Mapping[str, Any]]) -> None:
    if unequal := disagreements((who, fixed(tree)) for who, tree in trees):
        raise ValueError(
            f"cells of a confirmation must come from the same settings, sources, packages, XLA flags and data, got {'; '.join(unequal)}. "
            "Go on with those of the first cell."
        )


def train_cell(what: Recipe, workdir: pathlib.Path, data_dir: pathlib.Path, progress: Progress) -> dict[str, Any]:
    """The cell's training, or what is left of it, as the JSON tells it: of the last stage, the first under "pretraining".

    "flops" and "training" ("seconds", "update_seconds", "compile_seconds", "cpu_seconds") are of both.
    """
    *earlier, last = stages(what, str(workdir / PRETRAINING))
    if not earlier:
        return train_stage(last, workdir, data_dir, progress)
    before = train_stage(earlier[0], workdir / PRETRAINING, data_dir, progress)
    if "diverged" in before:
        write_json(workdir / "training.json", before)
        return before
    after = train_stage(last, workdir, data_dir, progress)
    sums = {name: _sum(before["training"][name], after["training"][name]) for name in SPENT}
    return {**after, "flops": before["flops"] + after["flops"], "training": {**after["training"], **sums}, "pretraining": before}


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def train_stage(what: Recipe, workdir: pathlib.Path, data_dir: pathlib.Path, progress: Progress) -> dict[str, Any]:
    """One training, or what is left of it, as the JSON tells it.

    "seconds": of the whole training, compilation and what kills undid included; "update_seconds": in updates and in waiting for their data;
    "cpu_seconds": of all threads, compilation included, None where it was resumed.
    """
    path = workdir / "training.json"
    if path.exists():
        return json.loads(path.read_text())
    flat = scheduled(what.config, 1, what.warmup, str(data_dir))
    base = training.Settings.from_dict(flat)
    mixture = open_mixture(base.data)
    per_update = update_flops(base, mixture.specs)
    updates = affordable(what.flops, per_update)
    config = scheduled(what.config, updates, what.warmup, str(data_dir))
    resumed, before = bool(finished_steps(workdir / "checkpoints")), _begun(workdir)
    cpu = _cpu_seconds()
    found: dict[str, Any] = {"config": _portable(config), "updates": updates, "update_flops": per_update, "flops": updates * per_update}
    found |= {"budget_flops": what.flops, "data_sha256": data_sha256(mixture)}
    try:
        train(config, workdir, progress=progress)
    except FloatingPointError as error:
        found["diverged"] = str(error).replace(str(workdir), "the run")
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "seconds" in line]

    def spent(part: str) -> float:
        return sum(line["seconds"] * line.get(f"time/{part}", 0.0) for line in logged)

    found["training"] = {
        "seconds": account(lines, updates).total,
        "update_seconds": spent("step") + spent("data"),
        "compile_seconds": spent("compile"),
        "cpu_seconds": None if resumed else _cpu_seconds() - cpu,
        "last_loss": logged[-1]["loss_mean"] if logged else None,
        "trained_at": COMMIT,
        **here(),
        "resumed_from": before if resumed else [],
    }
    write_json(path, found)
    return found


def by_checkpoint(workdir: pathlib.Path, ask: Callable[[Policy], dict[str, Any]], newest: Mapping[str, Any]) -> list[dict[str, float]]:
    """Of every checkpoint that a run kept, in order: {"step", "score", "success"}, the means over episodes; `newest` are the last one's."""
    *earlier, last = finished_steps(workdir / "checkpoints")
    asked = [(step, ask(load(workdir / "checkpoints" / str(step)))) for step in earlier]
    return [
        {"step": step, **{name: float(np.mean(answers["episodes"][name])) for name in ("score", "success")}}
        for step, answers in [*asked, (last, newest)]
    ]


def changed_policy(policy: Policy, what: Recipe, sampler: Sampler, data_dir: str) -> Policy:
    """The policy whose method is made from the configuration with the sampler's changes; its parameters stay."""
    if not sampler.change:
        return policy
    settings = training.Settings.from_dict(scheduled(changed(what.config, sampler.change), 1, what.warmup, data_dir))
    return dataclasses.replace(
        policy, method=dataclasses.replace(settings, model=acting(settings.model)).make_method(policy.specs, policy.statistics)
    )


def _portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without this machine's folders."""
    data = {name: value for name, value in config["data"].items() if name not in ("data_dir", "cache_dir")}
    return {**config, "data": data, **({"init_from": PRETRAINING} if "init_from" in config else {})}


def _begun(workdir: pathlib.Path) -> list[str]:
    """Notes that this code works in the folder; the commits that did before."""
    path = workdir / "commits.txt"
    before = path.read_text().split() if path.exists() else []
    workdir.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*before, COMMIT]) + "\n")
    return before


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _spent(workdir: pathlib.Path, seconds: float) -> float:
    """Wall seconds of the whole cell, earlier attempts by what they left: training and rollouts."""
    rollouts = sum(json.loads(path.read_text())["seconds"] for path in (workdir / "rollouts").glob("*.json"))
    stages = {path.read_text() for path in workdir.rglob("training.json")}  # a first stage that diverged is the whole training, too
    trained = sum(json.loads(text)["training"]["seconds"] for text in stages)
    return max(seconds, trained + rollouts)
