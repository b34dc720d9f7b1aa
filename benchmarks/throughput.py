"""Episodes a second of an evaluation: environments side by side with one batched policy call, against one environment at a time.

    python benchmarks/throughput.py --policy=runs/sample --suite=metaworld --tasks=pick-place-v3 --episodes=32

Both run the same episodes, the one at a time with a policy call of one row. The first, compiling call is left out of both.
"""

import json
import pathlib
import sys

from absl import app, flags

import ebt_jax
from ebt_jax.evaluation.results import hardware, versions
from ebt_jax.evaluation.rollouts import BATCH_SIZE, rollout

POLICY = flags.DEFINE_string("policy", None, "A run or an artifact.", required=True)
SUITE = flags.DEFINE_string("suite", "metaworld", "The simulators.")
TASKS = flags.DEFINE_list("tasks", ["pick-place-v3"], "Their tasks.")
EPISODES = flags.DEFINE_integer("episodes", 32, "Of each task.")
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the results.")


def main(_: list[str]) -> None:
    policy = ebt_jax.load(POLICY.value)
    command = " ".join(["python", "benchmarks/throughput.py", *sys.argv[1:]])
    results = {"episodes": EPISODES.value * len(TASKS.value), "hardware": hardware(), "versions": versions(), "command": command}
    for name, number in (("side by side", BATCH_SIZE), ("one at a time", 1)):
        found = rollout(policy, SUITE.value, tuple(TASKS.value), EPISODES.value, 0, num_envs=number, batch_size=number)
        results[name] = {"environments": number, "episodes per second": len(found.episodes) / found.wall_seconds}
        print(f"{name}, {number} environments: {results[name]['episodes per second']:.3f} episodes a second")
    print(f"{results['side by side']['episodes per second'] / results['one at a time']['episodes per second']:.2f} times as many")
    if OUTPUT.value:
        pathlib.Path(OUTPUT.value).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
