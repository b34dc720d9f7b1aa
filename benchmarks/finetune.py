"""Is a tenth task learnt better from nine others and ten demonstrations than from the ten alone? `configs/finetune.py`, five seeds.

    python benchmarks/finetune.py --output=runs/finetune

Collects the demonstrations (nine tasks in one dataset, the tenth in another), trains on the nine, and then, for each seed, fine-tunes on
the tenth and trains its twin from scratch: the same demonstrations, batches, updates and settings. Every policy is rolled out from the
same initial states. What is done is not done again: start the command once more to go on where it stood.

Prints success by seed and the mean paired difference with its 95 % t interval over seeds; writes OUTPUT/finetune.json.
"""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
from absl import flags, logging
from scipy import stats

from ebt_jax import cli
from ebt_jax.config import load as load_config
from ebt_jax.config import plain
from ebt_jax.evaluation.results import closed_loop_results, git_commit, hardware, versions
from ebt_jax.evaluation.rollouts import rollout
from ebt_jax.loading import load
from ebt_jax.training.loop import train

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "finetune.py"
DEMONSTRATIONS = {"metaworld_nine": 25, "metaworld_tenth": 12}
"""Dataset -> episodes of each of its tasks; of the tenth's twelve the configuration trains on ten and looks at two."""

_OUTPUT = flags.DEFINE_string("output", None, "Folder for datasets, runs and finetune.json.", required=True)
_SEEDS = flags.DEFINE_integer("seeds", 5, "Fine-tuned policies, and as many from scratch: seeds 0, 1, ...", lower_bound=2)
_EPISODES = flags.DEFINE_integer("episodes", 25, "Initial states of the tenth task.", lower_bound=1)


def main() -> None:
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path.home() / ".cache/ebt_jax/xla"))
    jax.config.update("jax_compilation_cache_dir", cache)
    output = pathlib.Path(_OUTPUT.value).resolve()
    nine, (tenth,) = (config_of(variant)["evaluation"]["tasks"] for variant in ("pretrain", ""))
    collect(output / "data", "metaworld_nine", nine)
    collect(output / "data", "metaworld_tenth", [tenth])

    pretrained = output / "pretrain"
    run("pretrain", output, pretrained, seed=0)
    before = evaluate(pretrained, tenth)
    seeds = {}
    for seed in range(_SEEDS.value):
        arms = {"finetune": pretrained, "scratch": None}
        for arm, source in arms.items():
            run("", output, output / f"{arm}_{seed}", seed, source)
        seeds[seed] = {arm: evaluate(output / f"{arm}_{seed}", tenth) for arm in arms}
        logging.info("seed %d: %s", seed, {arm: found["success_rate"] for arm, found in seeds[seed].items()})

    found = {"before_fine_tuning": before, "seeds": seeds, **summary(seeds), **circumstances(output)}
    text = json.dumps(found, indent=1).replace(str(output), "OUTPUT")  # where it lay is nobody's business
    (output / "finetune.json").write_text(text + "\n")
    print(f"{'seed':>4}  fine-tuned  from scratch")
    for seed, arms in seeds.items():
        print(f"{seed:>4}  {arms['finetune']['success_rate']:>10.2f}  {arms['scratch']['success_rate']:>12.2f}")
    low, high = found["difference_t95"]
    print(f"before fine-tuning {before['success_rate']:.2f}")
    print(f"difference {found['difference_mean']:.3f}, 95 % interval {low:.3f} to {high:.3f}")


def config_of(variant):
    """The plain values of a variant of the configuration."""
    config = load_config(CONFIG, variant)
    assert config is not None
    return plain(config)


def collect(data_dir, name, tasks):
    """The demonstrations of these tasks as one dataset, unless it is there."""
    if (data_dir / name).exists():
        return
    command = [sys.executable, "-m", "ebt_jax.collect", "--suite=metaworld", f"--tasks={','.join(tasks)}", "--seed=0", f"--name={name}"]
    subprocess.run([*command, f"--episodes={DEMONSTRATIONS[name]}", f"--output={data_dir}"], check=True, cwd=ROOT)


def run(variant, output, workdir, seed, source=None):
    """Trains a variant of the configuration, or goes on with it."""
    config = config_of(variant)
    config["data"]["data_dir"] = str(output / "data")
    config["seed"] = seed
    if source is not None:
        config["init_from"] = str(source)
    train(config, workdir, cli.progress)


def evaluate(workdir, task):
    """Success from the fixed initial states, read from `workdir` where it was measured before."""
    path = workdir / f"evaluation_{_EPISODES.value}.json"
    if not path.exists():
        policy = load(workdir)
        results = closed_loop_results(rollout(policy, "metaworld", (task,), _EPISODES.value, seed=0))
        path.write_text(json.dumps({"sha256": policy.identity.sha256, "step": policy.identity.step, **results["tasks"][task]}))
    return json.loads(path.read_text())


def summary(seeds):
    """Means, and the paired difference over seeds with its Student t interval."""
    rates = {arm: np.array([arms[arm]["success_rate"] for arms in seeds.values()]) for arm in ("finetune", "scratch")}
    difference = rates["finetune"] - rates["scratch"]
    half = stats.t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
    return {
        "finetune_mean": float(rates["finetune"].mean()),
        "scratch_mean": float(rates["scratch"].mean()),
        "difference": difference.tolist(),
        "difference_mean": float(difference.mean()),
        "difference_t95": [float(difference.mean() - half), float(difference.mean() + half)],
    }


def circumstances(output):
    """What was run, on what."""
    configs = {name: config_of(variant) for name, variant in (("pretrain", "pretrain"), ("finetune", ""))}
    return {
        "demonstrations": DEMONSTRATIONS,
        "init_from": json.loads((output / "finetune_0" / "init_from.json").read_text()),
        "config": configs,
        "evaluation": {"episodes": _EPISODES.value, "seed": 0},
        "versions": versions(),
        "git": git_commit(),
        "hardware": hardware(),
        "command": " ".join(["python", "benchmarks/finetune.py", *sys.argv[1:]]),
    }


if __name__ == "__main__":
    cli.run(main, __doc__ or "")
