"""One adapter a suite, behind gymnasium's API: `make(suite, task)`. A suite's package is imported when it is made."""

import importlib

from ebt_jax.simulators.simulator import Embodiment, Simulator

SUITES = {
    "metaworld": ("ebt_jax.simulators.metaworld", "MetaWorld"),
    "obstacle": ("ebt_jax.simulators.obstacle", "Obstacle"),
    "pusht": ("ebt_jax.simulators.pusht", "PushT"),
    "robosuite": ("ebt_jax.simulators.robosuite", "Robosuite"),
}


def make(suite: str, task: str, cameras: tuple[str, ...] = ()) -> Simulator:
    """A simulator of one task. Raises ValueError for an unknown suite, task or camera, ImportError where the suite is not installed."""
    return getattr(_module(suite), SUITES[suite][1])(task, cameras)


def tasks(suite: str) -> tuple[str, ...]:
    """The names of a suite's tasks."""
    return _module(suite).TASKS


def with_experts() -> tuple[str, ...]:
    """The suites whose tasks a scripted expert can show."""
    return tuple(suite for suite in SUITES if getattr(_module(suite), SUITES[suite][1]).expert_action is not Simulator.expert_action)


def embodiment(suite: str) -> Embodiment:
    """What the numbers of a suite mean."""
    return _module(suite).EMBODIMENT


def _module(suite: str):
    if suite not in SUITES:
        raise ValueError(f"suite must be one of {', '.join(SUITES)}, got {suite!r}.")
    return importlib.import_module(SUITES[suite][0])
