"""How well the order mixes: what a batch holds, beside one drawn at random without repetition.

    python benchmarks/shuffle.py --output=benchmarks/results/shuffle.json

An epoch's order of --episodes episodes of --steps steps each, cut into batches of 256, for several numbers of windows a visit.
Distance: how far apart the windows of neighbouring rows lie, as a share of all (1/3 at random). Same episode: pairs of one batch
that are of one episode, over what chance gives. Halves: the largest share of a batch that lies in one half of the dataset.
"""

import json
import pathlib
import sys

import numpy as np
from absl import app, flags

from ebt_jax.data.order import BLOCK, draw

EPISODES = flags.DEFINE_integer("episodes", 60_000, "Episodes of the dataset.")
STEPS = flags.DEFINE_integer("steps", 35, "Steps of each.")
BATCHES = flags.DEFINE_integer("batches", 4_000, "Batches of 256 looked at.")
VISITS = flags.DEFINE_list("windows_per_visit", ["1", "4", "8", "16"], "Windows that one visit to an episode serves.")
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the results.")
BATCH = 256


def measure(windows: np.ndarray, total: int, steps: int) -> dict[str, float]:
    """Statistics of an order of windows [n, BATCH] among `total`."""
    episodes = np.sort(windows // steps, axis=1)
    pairs = sum((episodes[:, lag:] == episodes[:, :-lag]).sum() for lag in range(1, 64))
    chance = windows.size * (BATCH - 1) / 2 * (steps - 1) / (total - 1)
    low = (windows < total / 2).mean(axis=1)
    return {
        "distance": float(np.abs(np.diff(windows.ravel())).mean() / total),
        "correlation": float(np.corrcoef(windows.ravel()[1:], windows.ravel()[:-1])[0, 1]),
        "same_episode_over_chance": float(pairs / chance),
        "largest_half": float(np.maximum(low, 1 - low).max()),
    }


def main(argv: list[str]) -> None:
    total, rows = EPISODES.value * STEPS.value, np.arange(BATCHES.value * BATCH)
    found = {}
    for together in map(int, VISITS.value):
        chosen = [draw(part, (total,), (1.0,), 0, together)[1] for part in np.split(rows, range(BLOCK, len(rows), BLOCK))]
        found[f"order, windows_per_visit {together}"] = measure(np.concatenate(chosen).reshape(-1, BATCH), total, STEPS.value)
    at_random = np.random.default_rng(0).permutation(total)[: len(rows)].reshape(-1, BATCH)
    found["numpy permutation"] = measure(at_random, total, STEPS.value)
    for name, row in found.items():
        print(f"{name:28} " + "  ".join(f"{key} {value:.4f}" for key, value in row.items()))
    result = {"command": "python " + " ".join(["benchmarks/shuffle.py", *sys.argv[1:]]), "windows": total, "orders": found}
    if OUTPUT.value:
        pathlib.Path(OUTPUT.value).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
