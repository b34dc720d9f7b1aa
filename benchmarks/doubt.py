"""Do energies mean something across observations? A toy whose densities are known answers, with and without the tie.

    python benchmarks/doubt.py --output=benchmarks/results/doubt.json

For each energy method and each tie (weight:temperature) trains --seeds networks on tests/toys/fork.py and measures, on 1024 fresh
observations:

- rank: Spearman correlation, over demonstrated pairs (o, a), of E and of E relative to 128 reference chunks (at temperature T) with
  -log p(a|o), and with -log p(a|o) / p(a), the pointwise mutual information's negative;
- wrong_chunk: AUROC of the same two for telling a chunk demonstrated from another observation from one that was demonstrated here;
- shifted: AUROC of E at the executed chunk, and of every statistic of ebt_jax/uncertainty.py, for telling shifted observations from
  unshifted ones (0.5 is chance, below it the statistic points the other way);
- distance: mean energy distance between p(a|o) and 16 samples: what a tie costs the descent;
- lifted: the rank correlation of E + 20 blur and E - 20 blur, which without a tie have the same loss.

Every number is given for each seed, with the mean and a 95 % t interval over seeds. Finished cells are kept in --output and not run
again.
"""

import json
import pathlib
import platform
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from scipy import stats

sys.path.append(str(pathlib.Path(__file__).parents[1] / "tests" / "toys"))
import bimodal
import fork

from ebt_jax.mcmc import MCMC
from ebt_jax.methods import make_method
from ebt_jax.uncertainty import doubt, reference_energies, relative_energy

METHODS = {
    "ebt-mse": ({"name": "ebt"}, MCMC(num_steps=2), 2),
    "ebt-energy-score": ({"name": "ebt", "objective": "energy_score"}, MCMC(num_steps=2), 2),
    "equilibrium": ({"name": "equilibrium", "travel": 0.0}, MCMC(step_size=0.3), 5),
}
"""Settings, descent, and steps of inference."""

SHIFTS = {"unseen angle, between": {"angle": fork.GAP}, "unseen angle, beyond": {"angle": (1.1, 1.6)}, "distractors": {"distractor": 3.0}}

NAMES = flags.DEFINE_list("methods", list(METHODS), "Methods to measure.")
TIES = flags.DEFINE_list("ties", ["0:1", "0.1:1", "0.1:0.1", "1:1"], "weight:temperature of each tie; weight 0 is none.")
SEEDS = flags.DEFINE_integer("seeds", 5, "Networks of each cell, trained side by side.")
UPDATES = flags.DEFINE_integer("updates", 1500, "Updates of 128 demonstrations.")
WIDTH = flags.DEFINE_integer("width", 64, "Units of each of the network's three layers.")
SAMPLES = flags.DEFINE_integer("samples", 1024, "Fresh observations.")
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the results.")

STARTS, REFERENCES, DRAWS = 4, 128, 16


def measure(method, num_steps, temperature, params, demonstrated, shifted):
    """Arrays of one network on `demonstrated` (numbers, actions) and on the numbers of each shift."""
    references = fork.draw(jax.random.key(5), REFERENCES).actions
    numbers, actions = demonstrated
    size = len(numbers)

    def sampled(numbers, starts, seed):
        context = method.encode(params, fork.observe(numbers))
        keys = jax.random.split(jax.random.key(seed), (starts, size))
        return context, jax.vmap(lambda keys: method.sample(params, context, keys, num_steps))(keys)

    def statistics(numbers):
        context, sample = sampled(numbers, STARTS, 100)
        energy_fn = lambda actions: method.energy(params, context, actions)
        found = doubt(energy_fn, sample.trace_actions[:, 0], sample.actions, references, temperature)
        return {"energy": sample.energy[0], **found._asdict()}

    context, sample = sampled(numbers, DRAWS, 200)
    energy_fn = lambda actions: method.energy(params, context, actions)
    reference = reference_energies(energy_fn, references, size)
    right, wrong = energy_fn(actions), energy_fn(jnp.roll(actions, 1, axis=0))
    true = jax.vmap(lambda key: fork.draw_actions(key, numbers))(jax.random.split(jax.random.key(300), DRAWS))
    return {
        "right": {"energy": right, "relative_energy": relative_energy(right, reference, temperature)},
        "wrong": {"energy": wrong, "relative_energy": relative_energy(wrong, reference, temperature)},
        "unshifted": statistics(numbers),
        "shifted": {name: statistics(rows) for name, rows in shifted.items()},
        "distance": energy_distance(sample.actions, true),
    }


def energy_distance(x, y):
    """E|X - Y| - E|X - X'| / 2 - E|Y - Y'| / 2 of two samples [m b h a] of equal size, unbiased, [b]."""
    m = len(x)

    def total(x, y):
        return jnp.sum(jnp.sqrt(jnp.sum((x[:, None] - y[None]) ** 2, axis=(3, 4)) + 1e-12), axis=(0, 1))

    return total(x, y) / m**2 - (total(x, x) + total(y, y)) / (2 * m * (m - 1))


def auroc(usual, unusual):
    """P(a draw of `unusual` exceeds one of `usual`), ties counted half."""
    return float(stats.mannwhitneyu(unusual, usual).statistic / (len(usual) * len(unusual)))


def rank(values, truth):
    return float(stats.spearmanr(values, truth)[0])


def scores(found, log_density, information, blur):
    """The numbers of one network, from `measure`."""
    energies = {"energy": found["right"]["energy"], "relative_energy": found["right"]["relative_energy"]}
    return {
        **{f"rank {name}, -log p(a|o)": rank(value, -log_density) for name, value in energies.items()},
        **{f"rank {name}, -log p(a|o)/p(a)": rank(value, -information) for name, value in energies.items()},
        **{f"wrong_chunk {name}": auroc(value, found["wrong"][name]) for name, value in energies.items()},
        **{
            f"shifted {shift}: {name}": auroc(found["unshifted"][name], value)
            for shift, values in found["shifted"].items()
            for name, value in values.items()
        },
        "distance": float(np.mean(found["distance"])),
        "lifted up": rank(energies["energy"] + 20 * blur, -log_density),
        "lifted down": rank(energies["energy"] - 20 * blur, -log_density),
    }


def interval(values):
    """The mean over seeds, and the 95 % t interval around it."""
    mean = float(np.mean(values))
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)) if len(values) > 1 else None
    return {"seeds": [round(value, 4) for value in values], "mean": mean, "half_width_95": half}


def run_cell(name, weight, temperature):
    settings, mcmc, num_steps = METHODS[name]
    model = bimodal.mlp_energy(fork.ACTION_SHAPE, fork.OBSERVED, WIDTH.value)
    method = make_method({**settings, "tie_weight": weight, "tie_temperature": temperature}, mcmc, model)
    start = time.perf_counter()
    params = jax.vmap(lambda seed: bimodal.train(method, UPDATES.value, batch=128, seed=seed, draw=fork.draw))(jnp.arange(SEEDS.value))
    numbers = fork.draw_numbers(jax.random.key(99), SAMPLES.value)
    actions = fork.draw_actions(jax.random.key(98), numbers)
    shifted = {shift: fork.draw_numbers(jax.random.key(7), SAMPLES.value, **change) for shift, change in SHIFTS.items()}
    found = jax.jit(jax.vmap(lambda p: measure(method, num_steps, temperature, p, (numbers, actions), shifted)))(params)
    found = jax.tree.map(np.asarray, found)
    log_density = np.asarray(fork.log_density(numbers, actions))
    information = log_density - np.asarray(fork.log_marginal(actions))
    rows = [scores(jax.tree.map(lambda x, i=i: x[i], found), log_density, information, numbers[:, 1]) for i in range(SEEDS.value)]
    best = auroc(-log_density, -np.asarray(fork.log_density(numbers, jnp.roll(actions, 1, axis=0))))
    return {
        "method": name,
        "tie_weight": weight,
        "tie_temperature": temperature,
        "seconds": time.perf_counter() - start,
        "wrong_chunk of -log p(a|o) itself": best,
        "scores": {key: interval([row[key] for row in rows]) for key in rows[0]},
    }


def table(cells):
    """Markdown, as docs/algorithm.md shows it."""
    columns = {
        "rank of E": ("rank energy, -log p(a|o)", 1),
        "rank of R": ("rank relative_energy, -log p(a|o)", 1),
        "wrong chunk, E": ("wrong_chunk energy", 1),
        "wrong chunk, R": ("wrong_chunk relative_energy", 1),
        "distance": ("distance", 1000),
    }
    lines = ["| method | tie: weight, T | " + " | ".join(columns) + " |", "|---" * (2 + len(columns)) + "|"]
    for cell in cells:
        numbers = []
        for key, scale in columns.values():
            score, digits = cell["scores"][key], 2 if scale == 1 else 1
            half = score["half_width_95"]
            numbers.append(f"{scale * score['mean']:.{digits}f}" + ("" if half is None else f" ± {scale * half:.{digits}f}"))
        tie = f"{cell['tie_weight']:g}, {cell['tie_temperature']:g}" if cell["tie_weight"] else "none"
        lines.append(f"| {cell['method']} | {tie} | " + " | ".join(numbers) + " |")
    return "\n".join(lines)


def main(argv):
    setup = {"seeds": SEEDS.value, "updates": UPDATES.value, "width": WIDTH.value, "samples": SAMPLES.value, "negatives": 8}
    path = pathlib.Path(OUTPUT.value) if OUTPUT.value else None
    cells = []
    if path and path.exists():
        kept = json.loads(path.read_text())
        if kept["setup"] != setup:
            raise ValueError(f"output must hold cells of the same setup, {setup}, got {kept['setup']}. Name another file.")
        cells = kept["cells"]
    for tie in TIES.value:
        weight, temperature = (float(number) for number in tie.split(":"))
        for name in NAMES.value:
            if any((c["method"], c["tie_weight"], c["tie_temperature"]) == (name, weight, temperature) for c in cells):
                continue
            cells.append(run_cell(name, weight, temperature))
            print(table(cells[-1:]).splitlines()[-1], f"{cells[-1]['seconds']:.0f} s", flush=True)
            cells.sort(key=lambda c: (c["method"], c["tie_weight"], -c["tie_temperature"]))
            if path:
                machine = {"machine": platform.processor() or platform.machine(), "jax": jax.__version__, "backend": jax.default_backend()}
                path.write_text(json.dumps({"setup": setup, **machine, "cells": cells}, indent=1) + "\n")
    print(table(cells))


if __name__ == "__main__":
    app.run(main)
