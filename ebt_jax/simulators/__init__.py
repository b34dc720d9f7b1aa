"""One adapter a suite, behind gymnasium's API: `make(suite, task)`. A suite's package is imported when it is made; what its tasks and
numbers are is known without it."""

import importlib
import importlib.util
from typing import NamedTuple

from ebt_jax.simulators.simulator import Embodiment, Simulator


class Adapter(NamedTuple):
    """All that is known of a suite without importing it.

    Attributes:
      module, name: where its class is.
      package: what it imports beside gymnasium.
      extra: installs both.
      versions: distributions that can change a result; results.json says which were there.
      mujoco: whether MuJoCo draws its frames and films, with the OpenGL backend that `rendering` finds.
    """

    module: str
    name: str
    package: str
    extra: str
    versions: tuple[str, ...]
    mujoco: bool


SUITES = {
    "metaworld": Adapter("ebt_jax.simulators.metaworld", "MetaWorld", "metaworld", "metaworld", ("metaworld", "mujoco"), mujoco=True),
    "obstacle": Adapter("ebt_jax.simulators.obstacle", "Obstacle", "metaworld", "metaworld", ("metaworld", "mujoco"), mujoco=True),
    "pusht": Adapter("ebt_jax.simulators.pusht", "PushT", "gym_pusht", "sim", ("gym-pusht", "pymunk"), mujoco=False),
    "robosuite": Adapter("ebt_jax.simulators.robosuite", "Robosuite", "robosuite", "sim", ("robosuite", "mujoco"), mujoco=True),
}


def make(suite: str, task: str, cameras: tuple[str, ...] = ()) -> Simulator:
    """A simulator of one task. Raises ValueError for an unknown suite, task or camera, ImportError where the suite is not installed."""
    made = getattr(_module(suite), SUITES[suite].name)
    check_installed(suite)
    return made(task, cameras)


def check_installed(suite: str) -> None:
    """Raises ImportError where the packages of a suite are not installed; imports none of them."""
    needed = SUITES[suite]
    missing = [name for name in ("gymnasium", needed.package) if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"suite {suite} needs {' and '.join(missing)}, got no such package. Try pip install 'ebt_jax[{needed.extra}]'.")


def tasks(suite: str) -> tuple[str, ...]:
    """The names of a suite's tasks."""
    return _module(suite).TASKS


def with_experts() -> tuple[str, ...]:
    """The suites whose tasks a scripted expert can show."""
    return tuple(suite for suite in SUITES if getattr(_module(suite), SUITES[suite].name).expert_action is not Simulator.expert_action)


def embodiment(suite: str) -> Embodiment:
    """What the numbers of a suite mean."""
    return _module(suite).EMBODIMENT


def _module(suite: str):
    if suite not in SUITES:
        raise ValueError(f"suite must be one of {', '.join(SUITES)}, got {suite!r}.")
    return importlib.import_module(SUITES[suite].module)
