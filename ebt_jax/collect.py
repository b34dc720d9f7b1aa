"""python -m ebt_jax.collect --suite=metaworld --tasks=pick-place-v3 --episodes=100 --seed=0 --output=DIR

Scripted experts' demonstrations as an RLDS (TFDS) dataset, DIR/NAME/1.0.0. The same flags and versions give the same values on machines
of one kind; another processor may give others.
"""

import re
from collections.abc import Iterable

from absl import flags

from ebt_jax import cli, simulators
from ebt_jax.data.write import write_rlds
from ebt_jax.simulators.demonstrate import dataset_spec, demonstrations

_SUITE = flags.DEFINE_enum("suite", "metaworld", list(simulators.with_experts()), "Whose experts to record.")
_TASKS = flags.DEFINE_list("tasks", [], "Task names, comma separated; all of the suite's where empty.")
_EPISODES = flags.DEFINE_integer("episodes", 100, "Successful episodes to record for each task.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Picks the initial states; they never meet those of ebt_jax.evaluate.", lower_bound=0)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write the dataset under.", required=True)
_NAME = flags.DEFINE_string("name", "", "The dataset's name; SUITE_TASK, or SUITE for several tasks, where empty.")
_NOISE = flags.DEFINE_float(
    "noise", 0.1, "Noise on what is executed, as a fraction of the action's limit; labels stay clean.", lower_bound=0.0
)
_CAMERAS = flags.DEFINE_list("cameras", [], "Cameras to record (primary, secondary, wrist); needs a working OpenGL.")
cli.on_disk("output")


def main() -> None:
    suite, cameras, known = _SUITE.value, tuple(_CAMERAS.value), simulators.tasks(_SUITE.value)
    tasks = _TASKS.value or list(known)
    _require_known("tasks", tasks, known)
    _require_known("cameras", cameras, [camera.name for camera in simulators.embodiment(suite).cameras])
    simulators.check_installed(suite)
    name = _NAME.value or "_".join([suite, *([_snake_case(tasks[0])] if len(tasks) == 1 else [])])
    settings = {"suite": suite, "tasks": ",".join(tasks), "episodes": _EPISODES.value, "seed": _SEED.value, "noise": _NOISE.value}
    settings |= {"cameras": ",".join(cameras)} if cameras else {}
    command = " ".join(["python -m ebt_jax.collect", *(f"--{flag}={value}" for flag, value in settings.items())])
    episodes = (episode for task in tasks for episode in demonstrations(suite, task, cameras, _EPISODES.value, _SEED.value, _NOISE.value))
    counted = cli.progress(episodes, len(tasks) * _EPISODES.value, "episodes")
    print(write_rlds(_OUTPUT.value, dataset_spec(name, suite, cameras, command), counted, f"Scripted experts of {suite}, {name}."))


def _snake_case(task: str) -> str:
    """pick-place-v3 -> pick_place_v3, PickPlaceCan -> pick_place_can."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", task).replace("-", "_").lower()


def _require_known(flag: str, names: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise flags.ValidationError(f"--{flag} must be among {', '.join(known)}, got {', '.join(unknown)}.")


if __name__ == "__main__":
    cli.run(main, __doc__ or "")
