"""Does doubt predict failure in closed loop? Every statistic of one policy, against the spread of a diffusion policy and its residual.

    python benchmarks/doubt_rollouts.py --output=benchmarks/results/doubt_rollouts.json
    python benchmarks/doubt_rollouts.py --suite=pusht --data_dir=DIR --output=benchmarks/results/doubt_rollouts_pusht.json

Trains each method on demonstrations of one task (the bundled ones of pick-place; people's of PushT, converted as configs/pusht.py says),
too briefly to be good at it, rolls it out and notes at every decision:

- for methods with an energy every statistic of `Policy.doubt` (four starts, 32 reference chunks, T = 1) and the raw energy;
- for diffusion `action_spread` over four samples, and `residual`: the denoising error of its own answer, mean over eight noises and levels.

AUROC for failure and the area under the risk-coverage curve (the mean risk over coverages; without information the failure rate), of the
highest value in the first decisions of an episode, as many as the shortest one has; for each seed. Besides, `caught`: the share of failures
that exceed, at any decision, the conformal threshold of risk 0.1 from the successes. Finished cells are kept in --output.
"""

import dataclasses
import json
import pathlib
import sys
import tempfile
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

import ebt_jax
from ebt_jax.calibration import Calibration, episodes_needed, threshold
from ebt_jax.config import load as load_config
from ebt_jax.config import plain
from ebt_jax.data.mixture import open_mixture
from ebt_jax.evaluation.audit import reference_chunks
from ebt_jax.evaluation.doubt import predicts_failure
from ebt_jax.evaluation.results import hardware, sources_sha256, versions
from ebt_jax.evaluation.rollouts import measure_doubt, rollout
from ebt_jax.normalize import normalize
from ebt_jax.training.loop import train
from ebt_jax.training.settings import Settings
from ebt_jax.types import Batch

METHODS = {
    "ebt-energy-score": {"name": "ebt", "objective": "energy_score", "num_starts": 2},
    "equilibrium": {"name": "equilibrium", "travel": 1.25},
    "diffusion": {"name": "diffusion"},
}
STEPS = {"equilibrium": 5, "diffusion": 10}


class Suite(NamedTuple):
    """A task, and trainings on it that leave between a fifth and four fifths of the episodes failing.

    Attributes:
      good: score from which on an episode has not failed. PushT's own success, 1, is rare for such policies: nine tenths count here.
    """

    config: tuple[str, str]
    task: str
    good: float
    updates: dict[str, int]


SUITES = {
    "metaworld": Suite(
        ("configs/oxe.py", "sample"), "pick-place-v3", 1.0, {"ebt-energy-score": 300, "equilibrium": 300, "diffusion": 1000}
    ),
    "pusht": Suite(("configs/pusht.py", "cpu"), "pusht", 0.9, {"ebt-energy-score": 1000, "equilibrium": 3000, "diffusion": 3000}),
}
STARTS, REFERENCES, NOISES = 4, 32, 8

NAMES = flags.DEFINE_list("methods", list(METHODS), "Methods to measure.")
SEEDS = flags.DEFINE_integer("seeds", 3, "Trainings of each.")
EPISODES = flags.DEFINE_integer("episodes", 50, "Rolled out, from the same initial states for all.")
SUITE = flags.DEFINE_enum("suite", "metaworld", list(SUITES), "The simulator, and with it the task.")
DATA = flags.DEFINE_string("data_dir", "", "Folder of the suite's dataset; the config's own where empty.")
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the results.")


def trained(name, seed, folder):
    """The policy, with reference chunks where it has an energy, and how it was made."""
    suite = SUITES[SUITE.value]
    values = plain(load_config(*suite.config))
    values |= {"method": METHODS[name], "seed": seed, "num_steps": suite.updates[name], "save_interval": 0, "eval_interval": 0}
    values |= {"sample_steps": STEPS.get(name, 0)}
    if DATA.value:
        values["data"] |= {"data_dir": DATA.value}
    train(values, folder)
    policy = ebt_jax.load(folder)
    if policy.method.energy is None:
        return policy
    references = reference_chunks(open_mixture(Settings.from_dict(values).data), REFERENCES)
    return dataclasses.replace(policy, calibration=Calibration("action_spread", STARTS, 1.0, "", {}, references).to_json())


def make_measure(policy):
    """`measure_doubt`, or for diffusion its own two numbers."""
    if policy.method.energy is not None:
        return measure_doubt

    @jax.jit
    def residual(params, observation, actions, keys):
        def one(observation, actions, key):
            row = jax.tree.map(lambda leaf: leaf[None], Batch(observation, actions, jnp.ones(actions.shape, bool)))
            draws = jax.random.split(key, NOISES)
            return jnp.mean(jax.vmap(lambda draw: policy.method.loss(params, row, draw[None])[0])(draws))

        return jax.vmap(one)(observation, actions, keys)

    def measure(policy, observation, keys, output):
        others = [policy.sample_actions(observation, jax.vmap(jax.random.fold_in, (0, None))(keys, m)).actions for m in range(1, STARTS)]
        answers = np.stack([normalize(actions, policy.action_normalizer) for actions in (output.actions, *others)])
        spread = np.sqrt(2 * np.mean((answers - answers.mean(0)) ** 2, axis=(0, 2, 3)) * STARTS / (STARTS - 1))
        prepared = policy.prepare(observation)
        return {"action_spread": spread, "residual": np.asarray(residual(policy.params, prepared, jnp.asarray(answers[0]), keys))}

    return measure


def run_cell(name, seed):
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        policy = trained(name, seed, pathlib.Path(folder) / "run")
        tasks, measure = (SUITES[SUITE.value].task,), make_measure(policy)
        found = rollout(policy, SUITE.value, tasks, EPISODES.value, seed=0, measure=measure, keep_going=False)
    failed = np.array([score(episode) < SUITES[SUITE.value].good for episode in found.episodes])
    measured = predicts_failure([episode.doubt for episode in found.episodes], failed)
    for one in measured["statistics"].values():
        del one["coverage"], one["risk"]
    return {
        "method": name,
        "seed": seed,
        "successes": int((~failed).sum()),
        "episodes": len(failed),
        "seconds": time.perf_counter() - start,
        **measured,
        "episode": [_episode(*pair) for pair in zip(found.episodes, failed, strict=True)],
    }


def score(episode):
    """PushT's; elsewhere 1 for success."""
    return episode.metrics.get("score", float(episode.success))


def _episode(episode, failed):
    highest = {name: float(f"{max(values):.4g}") for name, values in episode.doubt.items()}
    return {"success": not failed, "score": round(score(episode), 4), "length": episode.length, "highest": highest}


def caught(cell, statistic, risk=0.1):
    """Share of failures beyond the threshold from this cell's successes; NaN where either are too few."""
    highest = {flag: [e["highest"][statistic] for e in cell["episode"] if e["success"] == flag] for flag in (True, False)}
    if len(highest[True]) < episodes_needed(risk) or not highest[False]:
        return float("nan")
    return float(np.mean(np.array(highest[False]) > threshold(np.array(highest[True]), risk)))


def table(cells):
    """Markdown: mean over seeds, and every seed."""
    columns = ("method", "successes", "statistic", "AUROC, first decisions", "whole episode", "mean risk (failure rate)", "caught")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name in dict.fromkeys(cell["method"] for cell in cells):
        mine = [cell for cell in cells if cell["method"] == name]
        rates = ", ".join(f"{cell['successes']}/{cell['episodes']}" for cell in mine)
        for statistic in mine[0]["statistics"]:
            rows = [cell["statistics"][statistic] for cell in mine if cell["statistics"][statistic]["auroc"] is not None]
            if not rows:
                continue
            beginning, whole, area = ([row[key] for row in rows] for key in ("auroc_beginning", "auroc", "aurc"))
            failures = np.mean([cell["failure_rate"] for cell in mine])
            each = f" ({', '.join(f'{value:.2f}' for value in beginning)})" if len(beginning) > 1 else ""
            numbers = f"{np.mean(beginning):.2f}{each} | {np.mean(whole):.2f} | {np.mean(area):.2f} ({failures:.2f})"
            numbers += f" | {np.mean([caught(cell, statistic) for cell in mine]):.2f}"
            lines.append(f"| {name} | {rates} | {statistic} | {numbers} |")
    return "\n".join(lines)


def main(_):
    suite = SUITES[SUITE.value]
    asked = {"episodes": EPISODES.value, "num_starts": STARTS, "references": REFERENCES}
    setup = {"task": suite.task, "updates": suite.updates, **asked, "sources": sources_sha256()}
    path = pathlib.Path(OUTPUT.value) if OUTPUT.value else None
    command = " ".join(["python", "benchmarks/doubt_rollouts.py", *sys.argv[1:]])
    cells = []
    if path and path.exists():
        kept = json.loads(path.read_text())
        if kept["setup"] != setup:
            raise ValueError(f"output must hold cells of the same setup, {setup}, got {kept['setup']}. Name another file.")
        cells = kept["cells"]
    for seed in range(SEEDS.value):
        for name in NAMES.value:
            if any((cell["method"], cell["seed"]) == (name, seed) for cell in cells):
                continue
            cells.append(run_cell(name, seed))
            print(f"{name}, seed {seed}: {cells[-1]['successes']} of {cells[-1]['episodes']} in {cells[-1]['seconds']:.0f} s", flush=True)
            cells.sort(key=lambda cell: (list(METHODS).index(cell["method"]), cell["seed"]))
            if path:
                path.write_text(
                    json.dumps({"setup": setup, "hardware": hardware(), "versions": versions(), "command": command, "cells": cells}) + "\n"
                )
    print(table(cells))


if __name__ == "__main__":
    app.run(main)
