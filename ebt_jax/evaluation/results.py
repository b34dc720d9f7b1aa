"""results.json: what was reached, how sure that is, and everything needed to repeat it."""

import collections
import functools
import importlib.metadata
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ebt_jax.evaluation.doubt import predicts_failure
from ebt_jax.evaluation.rollouts import EpisodeResult, Rollouts
from ebt_jax.evaluation.statistics import wilson_interval
from ebt_jax.policy import Identity

PACKAGES = ("ebt_jax", "jax", "jaxlib", "flax", "numpy", "metaworld", "robosuite", "mujoco", "gym-pusht", "pymunk")


def closed_loop_results(rollouts: Rollouts) -> dict[str, Any]:
    """The part of results.json that rollouts give: tasks, mean success rate, sampler steps, latency of a batch, throughput."""
    by_task = collections.defaultdict(list)
    for episode in rollouts.episodes:
        by_task[episode.task].append(episode)
    tasks = {task: _task(episodes) for task, episodes in by_task.items()}
    stages = ("encode", "minimize", "total")
    return {
        "tasks": tasks,
        "mean_success_rate": float(np.mean([task["success_rate"] for task in tasks.values()])),
        "sample_steps": {"mean": float(np.mean(rollouts.num_steps)), **_percentiles(rollouts.num_steps)},
        "latency_ms": {stage: _percentiles([1e3 * s for s in rollouts.seconds.get(stage, [])]) for stage in stages},
        "batch_size": rollouts.batch_size,
        "episodes_per_second": len(rollouts.episodes) / rollouts.wall_seconds,
    }


def conditions(policy: Identity, suite: str, seed: int, execution_horizon: int) -> dict[str, Any]:
    """The part of results.json that says what was run, where, and how."""
    return {
        "suite": suite,
        "policy": {"path": policy.path, "sha256": policy.sha256, "step": policy.step, "method": policy.method},
        "execution_horizon": execution_horizon,
        "versions": versions(),
        "git": git_commit(),
        "hardware": hardware(),
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "seed": seed,
    }


def versions() -> dict[str, str]:
    """Python and the packages that can change a result, where installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str:
    """The commit this package was run from, "-dirty" where files differ from it, "" where no repository holds it.

    A repository that merely lies around it, as around an environment that it is installed in, is another project's.
    """
    here = pathlib.Path(__file__)
    git = functools.partial(subprocess.run, cwd=here.parent, capture_output=True, text=True, check=True)
    try:
        git(["git", "ls-files", "--error-unmatch", here.name])
        return git(["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def hardware() -> dict[str, Any]:
    """Processor, cores and the devices that jax computes on."""
    import jax

    devices = jax.devices()
    return {
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "platform": devices[0].platform,
        "devices": f"{len(devices)} x {devices[0].device_kind}",
    }


def _task(episodes: Sequence[EpisodeResult]) -> dict[str, Any]:
    successes = sum(episode.success for episode in episodes)
    return {
        "episodes": len(episodes),
        "successes": successes,
        "success_rate": successes / len(episodes),
        "wilson_95": list(wilson_interval(successes, len(episodes))),
        "mean_return": float(np.mean([episode.total for episode in episodes])),
        **{f"mean_{name}": float(np.mean([episode.metrics[name] for episode in episodes])) for name in episodes[0].metrics},
        "mean_jitter": float(np.mean([episode.jitter for episode in episodes])),
        "episode": [
            {
                "seed": one.state,
                "success": one.success,
                "return": one.total,
                "length": one.length,
                "jitter": one.jitter,
                **one.metrics,
                **({"doubt": _finite(one.doubt)} if one.doubt else {}),
            }
            for one in episodes
        ],
        **({"doubt": _doubt(episodes)} if episodes[0].doubt else {}),
    }


def _finite(doubt: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """Without what was not a number, which JSON does not know."""
    return {name: values for name, values in doubt.items() if np.isfinite(values).all()}


def _doubt(episodes: Sequence[EpisodeResult]) -> dict[str, Any]:
    return predicts_failure([one.doubt for one in episodes], np.array([not one.success for one in episodes]))


def _percentiles(values: Sequence[float | int]) -> dict[str, float | None]:
    return {f"p{q}": float(np.percentile(values, q)) if values else None for q in (50, 99)}


def _cpu_model() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
