"""Five folds by episode on a small set of real BridgeData V2: does the policy beat simple answers, and do images help?

    python benchmarks/bridge.py --data_dir=DIR --output=benchmarks/results/bridge.json

For each fold trains configs/bridge.py and its :blind variant (no camera) with every setting fixed beforehand, and scores the
last EMA parameters on the held-out episodes: squared error of the next action, every dimension divided by its variance in the
training episodes, over that of always acting the training mean. Beside them ridge regression on the same two steps of
proprio, at the penalty that suits the held-out folds best (which flatters ridge), and the trained policy with its camera
covered at test time.
"""

import json
import pathlib
import platform
import sys
import tempfile

import jax
import numpy as np
from absl import app, flags, logging

from ebt_jax.config import load as load_config
from ebt_jax.config import plain
from ebt_jax.data.mixture import Episode, episodes, open_mixture
from ebt_jax.loading import load
from ebt_jax.policy import Policy
from ebt_jax.training.loop import train
from ebt_jax.training.settings import Settings
from ebt_jax.types import Observation

DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder that holds bridge_dataset/1.0.0.", required=True)
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the results.")
SEEDS = flags.DEFINE_integer("seeds", 1, "Training seeds of each fold.")
STEPS = flags.DEFINE_integer("num_steps", 0, "Updates in place of the configuration's.")

CONFIG = pathlib.Path(__file__).parents[1] / "configs" / "bridge.py"
PENALTIES = (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)


def settings_of(variant: str, fold: int, seed: int) -> dict:
    config = load_config(CONFIG, variant)
    config.seed, config.data.data_dir, config.data.validation_fold = seed, DATA_DIR.value, fold
    if STEPS.value:
        config.num_steps = STEPS.value
    return plain(config)


def stacked(found: list[Episode]) -> tuple[Observation, np.ndarray]:
    """All steps of all episodes, robot units."""
    observation = jax.tree.map(lambda *parts: np.concatenate(parts), *[episode.observation for episode in found])
    return observation, np.concatenate([episode.actions for episode in found])


def next_actions(policy: Policy, observation: Observation, samples: int = 8) -> np.ndarray:
    """The policy's next action, mean of a few samples."""
    rows = np.arange(len(observation.proprio))
    chunks = [policy.sample_actions(observation, policy.sample_keys(draw, rows, rows)).actions[:, 0] for draw in range(samples)]
    return np.mean(chunks, axis=0)


def ridge(train_x: np.ndarray, train_y: np.ndarray, x: np.ndarray, penalty: float) -> np.ndarray:
    """Predictions of ridge regression on standardised inputs, outputs already standardised."""
    mean, deviation = train_x.mean(0), train_x.std(0) + 1e-6
    a = (train_x - mean) / deviation
    weights = np.linalg.solve(a.T @ a + penalty * np.eye(a.shape[1]), a.T @ train_y)
    return (x - mean) / deviation @ weights


def score_fold(fold: int, seed: int, scratch: pathlib.Path) -> dict[str, list[float]]:
    """Squared error of each predictor, per action dimension."""
    seeing = settings_of("", fold, seed)
    mixture = open_mixture(Settings.from_dict(seeing).data)
    (train_observation, train_actions), (observation, actions) = (stacked(list(episodes(mixture, s))) for s in ("train", "validation"))
    mean, deviation = train_actions.mean(0), train_actions.std(0) + 1e-9
    target = (actions - mean) / deviation
    flat = [o.proprio.reshape(len(o.proprio), -1) for o in (train_observation, observation)]
    answers = {"mean": np.zeros_like(target)}
    for penalty in PENALTIES:
        answers[f"ridge {penalty:g}"] = ridge(flat[0], (train_actions - mean) / deviation, flat[1], penalty)
    for name, config in (("policy", seeing), ("policy without camera", settings_of("blind", fold, seed))):
        workdir = scratch / f"{name}-{fold}-{seed}"
        train(config, workdir)
        policy = load(workdir)
        seen = observation if name == "policy" else observation._replace(images={}, image_masks={})
        answers[name] = (next_actions(policy, seen) - mean) / deviation
        if name == "policy":
            covered = observation._replace(image_masks={camera: np.zeros_like(m) for camera, m in observation.image_masks.items()})
            answers["policy, camera covered"] = (next_actions(policy, covered) - mean) / deviation
    return {name: np.mean((answer - target) ** 2, axis=0).tolist() for name, answer in answers.items()}


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    folds = []
    with tempfile.TemporaryDirectory() as scratch:
        for fold in range(5):
            for seed in range(SEEDS.value):
                errors = score_fold(fold, seed, pathlib.Path(scratch))
                folds.append({"fold": fold, "seed": seed, "errors": errors})
                ratio = {name: np.mean(e) / np.mean(errors["mean"]) for name, e in errors.items()}
                print(f"fold {fold} seed {seed}: " + ", ".join(f"{name} {value:.3f}" for name, value in ratio.items()), flush=True)
    names = list(folds[0]["errors"])
    ratios = {name: [float(np.mean(f["errors"][name]) / np.mean(f["errors"]["mean"])) for f in folds] for name in names}
    best = min((name for name in names if name.startswith("ridge")), key=lambda name: np.mean(ratios[name]))
    summary = {
        "ridge": ratios[best],
        **{name: ratios[name] for name in ("policy", "policy without camera", "policy, camera covered")},
    }
    print(f"\nerror over that of the mean action, {len(folds)} runs ({best} was the best ridge)")
    for name, values in summary.items():
        by_fold = np.reshape(values, (5, SEEDS.value)).mean(axis=1)
        print(f"  {name:24} {by_fold.mean():.3f} +- {by_fold.std(ddof=1) / 5**0.5:.3f} (standard error over folds)")
    result = {
        "ratios_to_mean_action": summary,
        "folds": folds,
        "hardware": f"{platform.machine()}, {jax.devices()[0].device_kind}",
        "versions": {"jax": jax.__version__, "python": platform.python_version()},
        "command": "python benchmarks/bridge.py " + " ".join(arg for arg in sys.argv[1:] if not arg.startswith("--data_dir")),
    }
    if OUTPUT.value:
        pathlib.Path(OUTPUT.value).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
