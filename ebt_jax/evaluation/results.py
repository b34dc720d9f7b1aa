"""results.json: what was reached, how sure that is, and everything needed to repeat it."""

import collections
import functools
import hashlib
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

from ebt_jax import simulators
from ebt_jax.evaluation.doubt import predicts_failure
from ebt_jax.evaluation.measured import EpisodeResult, Rollouts
from ebt_jax.evaluation.statistics import wilson_interval
from ebt_jax.policy import Identity
from ebt_jax.simulators.disturbance import UNDISTURBED, Disturbance

PACKAGES = ("ebt_jax", "jax", "jaxlib", "flax", "numpy")
"""Beside those of the suites, `simulators.Adapter.versions`."""


def closed_loop_results(rollouts: Rollouts, disturbance: Disturbance = UNDISTURBED) -> dict[str, Any]:
    """The part of results.json that rollouts give: tasks, mean success rate, sampler steps, latency of a batch, throughput.

    Under a disturbance each task says in `disturbed` in how many episodes it happened, and how many of those succeeded: one that ended
    sooner is no recovery.
    """
    by_task = collections.defaultdict(list)
    for episode in rollouts.episodes:
        by_task[episode.task].append(episode)
    tasks = {task: _task(episodes, disturbance) for task, episodes in by_task.items()}
    return {
        "tasks": tasks,
        "mean_success_rate": float(np.mean([task["success_rate"] for task in tasks.values()])),
        "sample_steps": {"mean": float(np.mean(rollouts.num_steps)) if rollouts.num_steps else None, **_percentiles(rollouts.num_steps)},
        "latency_ms": latencies(rollouts.seconds),
        "batch_size": rollouts.batch_size,
        "episodes_per_second": len(rollouts.episodes) / rollouts.wall_seconds,
    }


def check_failures(episodes: Sequence[EpisodeResult]) -> None:
    """Raises RuntimeError where no episode of a task could go on: its success rate says nothing about the task."""
    could = {episode.task for episode in episodes if not episode.failure}
    broken = [episode for episode in episodes if episode.task not in could]
    if broken:
        tasks = ", ".join(dict.fromkeys(episode.task for episode in broken))
        raise RuntimeError(
            f"an episode must end as its task has it, got {in_words(failures(broken))} in all {len(broken)} episodes of {tasks}. "
            "The warnings above say what was wrong; a policy that is not finite has diverged in training or takes too large steps."
        )


def failures(episodes: Sequence[EpisodeResult]) -> dict[str, int]:
    """Why episodes could not go on, and how many."""
    return dict(sorted(collections.Counter(episode.failure for episode in episodes if episode.failure).items()))


def in_words(failures: Mapping[str, int]) -> str:
    """ "not_finite 2, simulator 1" """
    return ", ".join(f"{name} {count}" for name, count in failures.items())


def latencies(seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float | None]]:
    """Stage of an answer -> percentiles, milliseconds."""
    return {stage: _percentiles([1e3 * s for s in seconds.get(stage, [])]) for stage in ("encode", "minimize", "total")}


def conditions(policy: Identity, suite: str, seed: int, execution_horizon: int) -> dict[str, Any]:
    """The part of results.json that says what was run, where, and how."""
    return {
        "suite": suite,
        "policy": policy._asdict(),
        "execution_horizon": execution_horizon,
        "versions": versions(),
        "git": git_commit(),
        "sources": sources_sha256(),
        "hardware": hardware(),
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "seed": seed,
    }


def versions() -> dict[str, str]:
    """Python and the packages that can change a result, where installed."""
    found = {"python": platform.python_version()}
    for package in dict.fromkeys((*PACKAGES, *(name for suite in simulators.SUITES.values() for name in suite.versions))):
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


@functools.cache
def sources_sha256() -> str:
    """Hash of the package's Python files and their names: tells code apart where no repository came along, as in a container."""
    root, digest = pathlib.Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


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


def _task(episodes: Sequence[EpisodeResult], disturbance: Disturbance) -> dict[str, Any]:
    successes = sum(episode.success for episode in episodes)
    met = [episode for episode in episodes if disturbance.happened(episode.length)]
    disturbed = {"disturbed": {"episodes": len(met), "successes": sum(episode.success for episode in met)}}
    noted = [episode for episode in episodes if episode.doubt and not episode.failure]
    return {
        "episodes": len(episodes),
        "successes": successes,
        "success_rate": successes / len(episodes),
        **(disturbed if disturbance != UNDISTURBED else {}),
        "failures": failures(episodes),
        "wilson_95": list(wilson_interval(successes, len(episodes))),
        "mean_return": float(np.mean([episode.total for episode in episodes])),
        **{f"mean_{name}": float(np.mean(values)) for name, values in _columns([_numbers(one.metrics) for one in episodes]).items()},
        "mean_jitter": float(np.mean([episode.jitter for episode in episodes])),
        "episode": [
            {
                "seed": one.state,
                "success": one.success,
                "return": one.total,
                "length": one.length,
                "jitter": one.jitter,
                **({"failure": one.failure} if one.failure else {}),
                **_numbers(one.metrics),
                **({"doubt": _finite(one.doubt)} if one.doubt else {}),
            }
            for one in episodes
        ],
        **({"doubt": _doubt(noted)} if noted else {}),
    }


def _numbers(metrics: Mapping[str, float]) -> dict[str, float]:
    """Without what is not measured yet where an episode could not go on."""
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Name -> its values, of the rows that have it."""
    found = collections.defaultdict(list)
    for row in rows:
        for name, value in row.items():
            found[name].append(value)
    return found


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
