"""Does an audit find what is wrong in a dataset? Faults planted in held-out demonstrations, and what is found at the planted rate.

    python -m ebt_jax.collect --suite=metaworld --tasks=reach-v3,push-v3,pick-place-v3 --episodes=30 --name=three_tasks --output=DATA
    python benchmarks/audit.py --data_dir=DATA --output=benchmarks/results/audit.json

Two datasets: the bundled sample (one task), and the three tasks above, which share table, puck and goal, so that only the instruction
says what to do. On each, small networks learn from three quarters of the episodes; in the rest one chunk in ten is spoiled, in one way at a
time:

- wrong_language    the instruction of another task (three tasks only);
- other_episode     the chunk of another episode, at any step;
- other_time        the chunk of the same episode, at least a chunk's length away;
- noise             Gaussian noise of .3 added to each number, the range of the normalised actions being [-1, 1];
- sign              all dimensions but the gripper negated;
- gripper           open where it was closed, and the reverse.

Every statistic ranks all held-out chunks. `precision`: of the tenth that ranks highest, how many are spoiled; recall is the same number,
since as many are taken as were planted. `average_precision`: its chance is 0.1. Both are means over 20 plantings. `episode_auroc`: whole
spoiled episodes against whole clean ones, by the mean over their chunks. `distance`, beside them, uses no energy: the root mean square
distance to the policy's own answer.
"""

import json
import os
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from ebt_jax.data.batches import gather
from ebt_jax.data.mixture import open_mixture
from ebt_jax.data.settings import DataSettings, bundled_sample_dir
from ebt_jax.evaluation.audit import make_scorer, reference_chunks
from ebt_jax.evaluation.doubt import auroc, average_precision
from ebt_jax.evaluation.open_loop import take
from ebt_jax.mcmc import MCMC
from ebt_jax.methods import make_method, method_settings
from ebt_jax.models import make_model
from ebt_jax.models.config import model_variant
from ebt_jax.policy import Identity, Policy
from ebt_jax.types import Observation

METHODS = {
    "ebt-energy-score": ({"name": "ebt", "objective": "energy_score", "num_starts": 2}, MCMC(num_steps=2), 2),
    "equilibrium": ({"name": "equilibrium", "travel": 1.25}, MCMC(), 5),
}
SAMPLE, THREE = "metaworld_pick_place_v3", "three_tasks"
RATE, PLANTINGS, MOST, BATCH = 0.1, 20, 768, 64

DATA_DIR = flags.DEFINE_string("data_dir", "", "Folder that holds three_tasks.")
NAMES = flags.DEFINE_list("methods", list(METHODS), "Methods to measure.")
DATASETS = flags.DEFINE_list("datasets", [SAMPLE, THREE], "What to audit.")
SEEDS = flags.DEFINE_integer("seeds", 3, "Networks of each cell.")
UPDATES = flags.DEFINE_integer("updates", 600, "Of 64 chunks.")
TIES = flags.DEFINE_list("tie_weights", ["0", "0.1"], "method.tie_weight, each in turn.")
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the results.")


def open_data(name):
    folder = bundled_sample_dir() if name == SAMPLE else DATA_DIR.value
    language = "none" if name == SAMPLE else "tokens"
    windows = {"observation_horizon": 1, "action_horizon": 16, "language": language}
    return open_mixture(DataSettings(folder, name, **windows, normalization="min_max", validation_fraction=0.25))


def make_trainer(method, mixture):
    """seed -> params, after so many updates of Adam on random windows, all of them in memory."""
    windows = mixture.batch(mixture.main, mixture.main.train, np.arange(len(mixture.main.train)))
    windows = jax.tree.map(jnp.asarray, windows)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 2e-3, 50, UPDATES.value, 1e-4)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    @jax.jit
    def train(seed):
        params = method.init(jax.random.key(seed), mixture.example_batch(1))

        def update(state, key):
            params, moments = state
            rows_key, loss_key = jax.random.split(key)
            rows = jax.random.randint(rows_key, (BATCH,), 0, len(windows.actions))
            batch = jax.tree.map(lambda leaf: leaf[rows], windows)
            gradient = jax.grad(lambda p: method.loss(p, batch, jax.random.split(loss_key, BATCH))[0])(params)
            change, moments = optimizer.update(gradient, moments, params)
            return (optax.apply_updates(params, change), moments), None

        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), UPDATES.value)
        return jax.lax.scan(update, (params, optimizer.init(params)), keys)[0][0]

    return train


def held_out(mixture):
    """Whole chunks of the held-out episodes, every fourth step, at most so many: batch in robot units, place of each one's episode."""
    part = mixture.main.validation
    episodes, steps = part.locate(np.arange(len(part)))
    whole = np.flatnonzero((steps + mixture.specs.action.horizon <= episodes["length"]) & (steps % 4 == 0))[:MOST]
    places = np.repeat(np.arange(len(part.episodes)), part.episodes["length"])[whole]
    columns, texts = part.index.columns, part.index.texts
    instructions = (
        [texts[columns["text"][episode["start"]]] for episode in part.episodes] if "text" in columns else [""] * len(part.episodes)
    )
    return gather(part, whole, mixture.specs), places, steps[whole], np.array(instructions)[places]


def spoil(kind, mixture, batch, places, steps, instructions, draw):
    """(observation, chunks) with every chunk spoiled in one way."""
    observation, actions = batch.observation, np.array(batch.actions)
    dimensions, count = mixture.specs.action.dimensions, len(batch.actions)
    grippers = np.array([dimension.kind == "gripper" for dimension in dimensions])
    low, high = (np.array([getattr(dimension, side) for dimension in dimensions], np.float32) for side in ("low", "high"))
    if kind == "wrong_language":
        other = np.array([draw.choice(np.flatnonzero(instructions != word)) for word in instructions])
        wrong = take(observation, other)
        return observation._replace(language=wrong.language, language_mask=wrong.language_mask), actions
    if kind == "other_episode":
        return observation, actions[[draw.choice(np.flatnonzero(places != place)) for place in places]]
    if kind == "other_time":
        away = [np.flatnonzero((places == places[i]) & (np.abs(steps - steps[i]) >= actions.shape[1])) for i in range(count)]
        return observation, actions[[draw.choice(rows) if len(rows) else i for i, rows in enumerate(away)]]
    if kind == "noise":
        scale = np.asarray(mixture.action_normalizer.scale)
        return observation, (actions + 0.3 * scale * draw.normal(size=actions.shape)).astype(np.float32)
    if kind == "sign":
        return observation, np.where(grippers, actions, -actions).astype(np.float32)
    return observation, np.where(grippers, low + high - actions, actions).astype(np.float32)


def make_policy(method, params, mixture, steps, name):
    normalizers = (mixture.action_normalizer, mixture.proprio_normalizer)
    return Policy(method, params, mixture.specs, mixture.statistics, *normalizers, steps, 8, Identity("", "", 0, name))


def scores(score, policy, observation: Observation, actions):
    """statistic -> [n], in batches of one size."""
    found, answers = [], []
    for start in range(0, len(actions), BATCH):
        rows = np.minimum(np.arange(start, start + BATCH), len(actions) - 1)
        fit, answer = score(take(observation, rows), actions[rows], policy.sample_keys(0, rows, rows))
        found.append(fit._asdict())
        answers.append(answer)
    values = {name: np.concatenate([part[name] for part in found])[: len(actions)] for name in found[0]}
    scale = np.asarray(policy.action_normalizer.scale)
    difference = (np.concatenate(answers)[: len(actions)] - actions) / scale
    return {**values, "distance": np.sqrt(np.mean(difference**2, axis=(1, 2)))}


def detection(clean, spoiled, places, seed):
    """How well one statistic finds a tenth that is spoiled."""
    draw, count = np.random.default_rng(seed), max(1, round(RATE * len(clean)))
    precision, average = [], []
    for _ in range(PLANTINGS):
        planted = np.zeros(len(clean), bool)
        planted[draw.choice(len(clean), count, replace=False)] = True
        values = np.where(planted, spoiled, clean)
        precision.append(np.mean(planted[np.argsort(-values, kind="stable")[:count]]))
        average.append(average_precision(values, planted))
    means = [np.array([values[places == place].mean() for place in np.unique(places)]) for values in (clean, spoiled)]
    failed = np.arange(2 * len(means[0])) >= len(means[0])
    return {
        "precision": float(np.mean(precision)),
        "average_precision": float(np.mean(average)),
        "episode_auroc": auroc(np.concatenate(means), failed),
    }


def run_dataset(dataset):
    mixture = open_data(dataset)
    batch, places, steps, instructions = held_out(mixture)
    kinds = [*(["wrong_language"] if len(set(instructions)) > 1 else []), "other_episode", "other_time", "noise", "sign", "gripper"]
    draw = np.random.default_rng(0)
    spoiled = {kind: spoil(kind, mixture, batch, places, steps, instructions, draw) for kind in kinds}
    references = reference_chunks(mixture, 64)
    for name in NAMES.value:
        settings, mcmc, num_steps = METHODS[name]
        for tie in map(float, TIES.value):
            table = {**settings, "tie_weight": tie}
            size = model_variant("debug", width=32, encoder_layers=1, decoder_layers=1, unroll=1)
            method = make_method(table, mcmc, make_model(size, mixture.specs, method_settings(table).head))
            train = make_trainer(method, mixture)
            for seed in range(SEEDS.value):
                start = time.perf_counter()
                policy = make_policy(method, train(seed), mixture, num_steps, name)
                score = make_scorer(policy, references)
                clean = scores(score, policy, batch.observation, np.asarray(batch.actions))
                found = {}
                for kind, (observation, actions) in spoiled.items():
                    values = scores(score, policy, observation, actions)
                    found[kind] = {statistic: detection(clean[statistic], values[statistic], places, seed) for statistic in clean}
                about = {"dataset": dataset, "method": name, "tie_weight": tie, "seed": seed, "chunks": len(places)}
                yield {**about, "episodes": len(set(places)), "seconds": time.perf_counter() - start, "found": found}


def table(cells):
    """Markdown: average precision, mean over seeds; the best of each row's energy statistics is for the reader to see."""
    statistics = list(cells[0]["found"]["noise"])
    lines = ["| dataset | method, tie | planted | " + " | ".join(statistics) + " |", "|---" * (3 + len(statistics)) + "|"]
    groups = {}
    for cell in cells:
        for kind, found in cell["found"].items():
            groups.setdefault((cell["dataset"], f"{cell['method']}, {cell['tie_weight']:g}", kind), []).append(found)
    for key, found in groups.items():
        numbers = [f"{np.mean([one[name]['average_precision'] for one in found]):.2f}" for name in statistics]
        lines.append("| " + " | ".join((*key, *numbers)) + " |")
    return "\n".join(lines)


def main(_):
    cells = []
    for dataset in DATASETS.value:
        for cell in run_dataset(dataset):
            cells.append(cell)
            about = f"{cell['dataset']}, {cell['method']}, tie {cell['tie_weight']:g}, seed {cell['seed']}"
            print(f"{about}: {cell['seconds']:.0f} s", flush=True)
            if OUTPUT.value:
                setup = {"seeds": SEEDS.value, "updates": UPDATES.value, "rate": RATE, "plantings": PLANTINGS, "cores": os.cpu_count()}
                pathlib.Path(OUTPUT.value).write_text(json.dumps({**setup, "jax": jax.__version__, "cells": cells}, indent=1) + "\n")
    print(table(cells))


if __name__ == "__main__":
    app.run(main)
