"""Evaluates a policy.

  python -m ebt_jax.evaluate --policy=PATH --output=DIR
  python -m ebt_jax.evaluate --policy=PATH --suite=metaworld --tasks=pick-place-v3 --episodes=50 --seed=0 --output=DIR
  python -m ebt_jax.evaluate --policy=PATH --suite=dataset --data_dir=FOLDER --tasks=NAME --episodes=20 --seed=0 --output=DIR
  python -m ebt_jax.evaluate --policy=PATH --suite=... --worker=0/4 --output=DIR      and 1/4, 2/4, 3/4, anywhere; then
  python -m ebt_jax.evaluate --merge --output=DIR

The first is the evaluation that the run's config names: its suite, tasks, episodes and seed (config.evaluation), each where no flag says
otherwise. With --suite nothing is taken from there. The second is closed loop in a simulator, from fixed initial states; the third
compares actions with a dataset's, without acting; the last two share a closed loop out over processes or machines and put its parts
together. PATH is a run or an exported artifact.

A dataset that the policy's run learnt from is split as there: --split=validation is what the run held out. Writes DIR/results.json,
DIR/report.html and, in closed loop, films that results.json names; without the packages that draw and film, results.json alone. The last
line is the result, and says of a dataset's episodes whether the policy was trained on them. A closed loop that is stopped or killed goes
on when the same command is started again: no finished episode is run twice.
"""

import contextlib
import dataclasses
import importlib.util
import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from absl import flags, logging

from ebt_jax import cli, simulators
from ebt_jax.interruption import Interrupted, termination_requested
from ebt_jax.simulators.disturbance import Disturbance
from ebt_jax.stopping import CAPACITY, Stopping
from ebt_jax.whole import write_whole

_POLICY = flags.DEFINE_string("policy", None, "A workdir, its checkpoints, one step of them, or an artifact.")
_ROBOT = flags.DEFINE_string("robot", "", "Of a run on several datasets: in whose numbers to act; the heaviest's where empty.")
_SUITE = flags.DEFINE_enum("suite", None, [*simulators.SUITES, "dataset"], "Where to evaluate; that of the run's config where unset.")
_TASKS = flags.DEFINE_list(
    "tasks", [], "Task names (suite dataset: dataset names); all of the suite's, or without --suite the config's, where empty."
)
_EPISODES = flags.DEFINE_integer(
    "episodes", None, "Episodes of each task; 50, or without --suite the config's, where unset.", lower_bound=1
)
_SEED = flags.DEFINE_integer(
    "seed",
    None,
    "Picks the initial states (0: the published 100000, 100001, ... of PushT) and the policy's noise; 0, or without --suite the config's, "
    "where unset.",
    lower_bound=0,
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for results.json, videos and report.html.", required=True)
_SAMPLE_STEPS = flags.DEFINE_integer("sample_steps", None, "Steps of the policy's sampler; its own where unset.", lower_bound=1)
_EXECUTION = flags.DEFINE_enum("execution", "receding", ["receding", "ensemble", "realtime"], "How chunks become actions.")
_EXECUTION_HORIZON = flags.DEFINE_integer(
    "execution_horizon", None, "Actions executed of each chunk; the policy's own where unset.", lower_bound=1
)
_DECAY = flags.DEFINE_float("ensemble_decay", 0.01, "Execution ensemble: chunk i weighs exp(-decay i), 0 the oldest.", lower_bound=0)
_COMMITTED = flags.DEFINE_integer(
    "committed", 0, "Execution realtime: actions held because the robot executes them meanwhile.", lower_bound=0
)
_NUM_STARTS = flags.DEFINE_integer("num_starts", 1, "Descents of each chunk, of which the lowest is executed.", lower_bound=1)
_MAX_STEPS = flags.DEFINE_integer(
    "max_steps", 16, "Cap of the steps, alone or beside a --stop_... or --budget_ms.", lower_bound=1, upper_bound=CAPACITY
)
_STOP_GRADIENT = flags.DEFINE_float("stop_gradient", 0.0, "Each sample rests where its gradient norm is less.", lower_bound=0)
_STOP_ENERGY_DROP = flags.DEFINE_float("stop_energy_drop", -math.inf, "Each sample rests where a step lowered its energy by less.")
_STOP_STEP_LENGTH = flags.DEFINE_float("stop_step_length", 0.0, "Each sample rests where a step would move it by less.", lower_bound=0)
_BUDGET_MS = flags.DEFINE_float(
    "budget_ms", 0.0, "Cap the steps so that one answer for all environments takes about so long.", lower_bound=0
)
_DOUBT = flags.DEFINE_bool("doubt", False, "Note the policy's doubt in what it answers by itself: does it predict failure?")
_PUSH = flags.DEFINE_float("push", 0.0, "Move the task's object so far (PushT px, others m) in every episode.", lower_bound=0)
_RELEASE = flags.DEFINE_integer("release", 0, "Hold the gripper open for so many steps in every episode.", lower_bound=0)
_DISTURB_AT = flags.DEFINE_integer("disturb_at", 0, "Steps before the push and the release.", lower_bound=0)
_NOISE = flags.DEFINE_float(
    "observation_noise", 0.0, "Noise on the proprioception, in the training data's standard deviations.", lower_bound=0
)
_WORKER = flags.DEFINE_string("worker", "", "i/N: run every N-th episode from the i-th on, and write that part alone.")
_MERGE = flags.DEFINE_bool("merge", False, "Put the parts of all workers in --output together.")
_NUM_ENVS = flags.DEFINE_integer(
    "num_envs", 16, "Environments at a time, at most 16; results do not depend on it.", lower_bound=1, upper_bound=16
)
_VIDEOS = flags.DEFINE_integer("videos", 3, "Episodes of each task to film.", lower_bound=0)
_DATA_DIR = flags.DEFINE_string("data_dir", "", "Suite dataset: the folder that holds the datasets.")
_SPLIT = flags.DEFINE_enum(
    "split", "train", ["train", "validation"], "Suite dataset: the episodes that the policy's run trained on, or those it held out."
)
cli.on_disk("output")


class Asked(NamedTuple):
    """What is to be measured."""

    suite: str
    tasks: tuple[str, ...]
    episodes: int
    seed: int


def main() -> None:
    """Loads, runs, writes, prints."""
    output = pathlib.Path(_OUTPUT.value)
    if _MERGE.value:
        _check_merge()
        _merge(output)
        return
    from ebt_jax.evaluation.results import conditions
    from ebt_jax.loading import load

    if not _POLICY.value:
        raise flags.ValidationError("--policy must be given, unless --merge is.")
    asked = _asked({}) if _SUITE.value else None  # before anything is loaded
    shard, disturbance = _checked_shard(), _checked_disturbance()
    _check_flags()
    _check_doubt()
    policy = load(_POLICY.value, robot=_ROBOT.value)
    if _SAMPLE_STEPS.value:
        with cli.wrong_usage("--sample_steps: "):
            policy.check_steps(_SAMPLE_STEPS.value)
    asked = asked or _asked(_own(policy))
    horizon = _EXECUTION_HORIZON.value or policy.execution_horizon
    about = conditions(policy.identity, asked.suite, asked.seed, horizon)
    if asked.suite == "dataset":
        measured, headline = _open_loop(policy, asked)
        _write(output, {**about, **measured}, headline)
        return
    _closed_loop(policy, asked, output, shard, horizon, disturbance, about)


def _check_merge() -> None:
    """Raises flags.ValidationError for a flag that --merge would ignore."""
    own = next(found for found in flags.FLAGS.flags_by_module_dict().values() if any(flag.name == _MERGE.name for flag in found))
    given = [flag.name for flag in own if flag.present and flag.name not in (_MERGE.name, _OUTPUT.name)]
    if given:
        raise flags.ValidationError(
            f"--{' and --'.join(given)} must not go with --merge, which reads what the workers measured. Leave them out, or evaluate anew."
        )


def _merge(output: pathlib.Path) -> None:
    from ebt_jax.evaluation.results import check_failures
    from ebt_jax.evaluation.shards import merge_shards

    about, rollouts = merge_shards(output)
    _finish(output, about, rollouts)
    check_failures(rollouts.episodes)


def _finish(output: pathlib.Path, about: dict[str, Any], rollouts: Any) -> None:
    """results.json of a closed loop, and its lines."""
    from ebt_jax.evaluation.films import film_folder
    from ebt_jax.evaluation.results import closed_loop_results, failures
    from ebt_jax.evaluation.statistics import wilson_interval

    results = closed_loop_results(rollouts, Disturbance(**about["disturbance"]))
    results |= {"videos": [f"{film_folder(about)}/{film}" for film in rollouts.films]}
    for task, found in results["tasks"].items():
        words = _words(found["successes"], found["episodes"], found["wilson_95"])
        print(f"{task}: {words}{_disturbed([found])}{_stopped(found['failures'])}{_metrics(found)}")
    successes, episodes = (sum(found[name] for found in results["tasks"].values()) for name in ("successes", "episodes"))
    words = _words(successes, episodes, wilson_interval(successes, episodes)) + _disturbed(results["tasks"].values())
    _write(output, {**about, **results}, f"success rate {words}{_stopped(failures(rollouts.episodes))}")


def _finish_part(output: pathlib.Path, shard: tuple[int, int], about: dict[str, Any], rollouts: Any) -> None:
    """A worker's file, and its line."""
    from ebt_jax.evaluation.results import failures
    from ebt_jax.evaluation.shards import write_shard

    logging.info("wrote %s", write_shard(output, shard, about, rollouts))
    stopped = _stopped(failures(rollouts.episodes))
    print(f"{len(rollouts.episodes)} episodes of worker {_WORKER.value}{stopped}; merge them once all have run")


def _write(output: pathlib.Path, results: dict[str, Any], headline: str) -> None:
    """results.json, without the films of earlier ones, and the report where what draws it is installed; prints the headline last."""
    from ebt_jax.evaluation.films import remove_other_films

    write_whole(output / "results.json", json.dumps(results, indent=2) + "\n")
    remove_other_films(output, results.get("videos", []))
    logging.info("wrote %s", output / "results.json")
    try:  # after the results, which a farm's machine must not lose for want of matplotlib
        from ebt_jax.report.evaluation import write_evaluation_report
        from ebt_jax.report.run import write_run_report
    except ImportError as error:
        logging.warning("report.html is left out: %s.", error)
    else:
        logging.info("wrote %s", write_evaluation_report(output))
        if (output.parent / "metrics.jsonl").exists():
            logging.info("wrote %s", write_run_report(output.parent))
    print(headline)


def _checked_shard() -> tuple[int, int] | None:
    """What --worker says; None without. Raises flags.ValidationError for anything but i/N."""
    from ebt_jax.evaluation.shards import parse_shard

    if not _WORKER.value:
        return None
    if _SUITE.value == "dataset":
        raise flags.ValidationError("--worker must be of a closed loop, got --suite=dataset.")
    if _VIDEOS.present and _VIDEOS.value:
        raise flags.ValidationError(
            f"--videos must not go with --worker, which films nothing, got {_VIDEOS.value}. Film a few episodes without --worker."
        )
    if _BUDGET_MS.value:
        raise flags.ValidationError(
            "--budget_ms must not go with --worker: each machine would find a cap of its own. Find one, and give it as --max_steps."
        )
    try:
        return parse_shard(_WORKER.value)
    except ValueError as error:
        raise flags.ValidationError(f"--{error}") from error


def _checked_disturbance() -> Disturbance:
    """What is to go wrong. Raises flags.ValidationError for what cannot."""
    if _SUITE.value == "dataset" and (_DISTURB_AT.value or _PUSH.value or _RELEASE.value or _NOISE.value):
        raise flags.ValidationError("--push, --release and --observation_noise must be of a closed loop, got --suite=dataset.")
    try:
        return Disturbance(_DISTURB_AT.value, _PUSH.value, _RELEASE.value, _NOISE.value)
    except ValueError as error:
        raise flags.ValidationError(f"--disturb_at, --push, --release and --observation_noise must fit together: {error}") from error


def _check_flags() -> None:
    """Raises flags.ValidationError for a flag that would change nothing, and for flags that do not fit together."""
    if _DECAY.present and _EXECUTION.value != "ensemble":
        raise flags.ValidationError(f"--ensemble_decay must be of --execution=ensemble, got --execution={_EXECUTION.value}.")
    stopping = (_MAX_STEPS, _STOP_GRADIENT, _STOP_ENERGY_DROP, _STOP_STEP_LENGTH, _BUDGET_MS)
    acting = (_NUM_STARTS, _EXECUTION, _EXECUTION_HORIZON, _COMMITTED, _VIDEOS, _NUM_ENVS)
    closed = [flag.name for flag in (*stopping, *acting) if flag.present]
    if _SUITE.value == "dataset" and closed:
        remedy = "Use --sample_steps." if any(flag.present for flag in stopping) else "Leave it out."
        raise flags.ValidationError(f"--{' and --'.join(closed)} must be of a closed loop, got --suite=dataset. {remedy}")
    read = [flag.name for flag in (_SPLIT, _DATA_DIR) if flag.present]
    if _SUITE.value not in ("", "dataset") and read:
        raise flags.ValidationError(f"--{' and --'.join(read)} must be of --suite=dataset, got --suite={_SUITE.value}.")
    rules = [flag.name for flag in stopping if flag.present]
    if _SAMPLE_STEPS.present and rules:
        raise flags.ValidationError(f"--sample_steps must not go with --{' and --'.join(rules)}: their cap takes its place.")
    _rules()
    _execution(_EXECUTION_HORIZON.value or _COMMITTED.value or 1)


def _execution(horizon: int) -> Any:
    """How chunks become actions. Raises flags.ValidationError for flags that do not fit together."""
    from ebt_jax.execution import Execution

    with cli.wrong_usage("--execution, --execution_horizon, --ensemble_decay and --committed must fit together: "):
        return Execution(_EXECUTION.value, horizon, _DECAY.value, _COMMITTED.value)


def _rules() -> Stopping:
    """When a sample rests. Raises flags.ValidationError for what is no number."""
    with cli.wrong_usage("--max_steps and the --stop_... flags: "):
        return Stopping(_MAX_STEPS.value, _STOP_GRADIENT.value, _STOP_ENERGY_DROP.value, _STOP_STEP_LENGTH.value)


def _check_doubt() -> None:
    """Raises flags.ValidationError where --doubt would be of another answer than the one that is executed, or of none."""
    if not _DOUBT.value:
        return
    if _SUITE.value == "dataset":
        raise flags.ValidationError("--doubt must be of a closed loop, got --suite=dataset.")
    steps = (_SAMPLE_STEPS, _MAX_STEPS, _STOP_GRADIENT, _STOP_ENERGY_DROP, _STOP_STEP_LENGTH, _BUDGET_MS)
    other = [flag.name for flag in steps if flag.present]
    other += ["num_starts"] if _NUM_STARTS.value > 1 else []
    other += ["execution=realtime"] if _EXECUTION.value == "realtime" else []
    if other:
        raise flags.ValidationError(
            f"--doubt must be of what the policy answers by itself, got --{' and --'.join(other)}. Evaluate once with either."
        )


def _own(policy: Any) -> Mapping[str, Any]:
    """The evaluation of the policy's run. Raises flags.ValidationError where it has none."""
    own = policy.experiment.evaluation if policy.experiment else {"suite": ""}
    if not own["suite"]:
        raise flags.ValidationError("--suite must be given for a policy whose run had none, config.evaluation.suite.")
    return own


def _asked(own: Mapping[str, Any]) -> Asked:
    """What the flags say, and `own` where they say nothing.

    Raises flags.ValidationError, which is wrong usage, for unknown or missing tasks, ImportError where the suite is not installed.
    """
    suite, tasks = _SUITE.value or own["suite"], tuple(dict.fromkeys(_TASKS.value or own.get("tasks", ())))
    episodes, seed = _EPISODES.value or own.get("episodes", 50), own.get("seed", 0) if _SEED.value is None else _SEED.value
    if suite == "dataset":
        if not _DATA_DIR.value or not tasks:
            raise flags.ValidationError("--suite=dataset must have --data_dir (the folder of datasets) and --tasks (their names).")
        return Asked(suite, tasks, episodes, seed)
    known = simulators.tasks(suite)
    unknown = sorted(set(tasks) - set(known))
    if unknown:
        raise flags.ValidationError(f"--tasks must be among {', '.join(known)}, got {', '.join(unknown)}.")
    simulators.check_installed(suite)
    return Asked(suite, tasks or known, episodes, seed)


def _closed_loop(
    policy: Any,
    asked: Asked,
    output: pathlib.Path,
    shard: tuple[int, int] | None,
    horizon: int,
    disturbance: Disturbance,
    about: dict[str, Any],
) -> None:
    """Runs the episodes that are not finished yet, and writes what was measured of all.

    Raises flags.ValidationError for what this policy cannot be asked, Interrupted where that is asked for, RuntimeError, after all is
    written, where a task has no result.
    """
    from ebt_jax.evaluation.films import film_folder
    from ebt_jax.evaluation.results import check_failures
    from ebt_jax.evaluation.rollouts import BATCH_SIZE, Asking, check_asked, masked_cameras, measure_doubt, renderer, rollout
    from ebt_jax.evaluation.unfinished import Unfinished, unfinished_path

    if shard is not None and shard[0] >= len(asked.tasks) * asked.episodes:
        raise flags.ValidationError(f"--worker must be of at most the {len(asked.tasks) * asked.episodes} episodes, got {_WORKER.value}.")
    execution = _execution(horizon)
    with cli.wrong_usage():
        disturbance.check(len(policy.specs.observation.proprio), simulators.embodiment(asked.suite).max_steps)
        if _DOUBT.value:
            policy.check_energy("--doubt")
        asking = Asking(_SAMPLE_STEPS.value, _stopping(policy, BATCH_SIZE), _NUM_STARTS.value)
        check_asked(policy, execution, asking)
    videos = _VIDEOS.value if shard is None else 0
    if videos and importlib.util.find_spec("imageio_ffmpeg") is None:
        logging.warning("videos are left out: No module named 'imageio_ffmpeg'.")
        videos = 0
    stopping = None if asking.stopping is None else {key: str(value) for key, value in dataclasses.asdict(asking.stopping).items()}
    doubt = policy.doubt_settings.summary() if _DOUBT.value else None
    how = {"num_steps": asking.num_steps, "stopping": stopping, "num_starts": asking.num_starts, "doubt": doubt}
    about = {
        **about,
        "execution": dataclasses.asdict(execution),
        "asking": how,
        "disturbance": dataclasses.asdict(disturbance),
        "renderer": renderer(policy, asked.suite, videos > 0),
        "masked_cameras": masked_cameras(policy, asked.suite),
        "tasks": list(asked.tasks),
        "episodes": asked.episodes,
    }
    unfinished = Unfinished(unfinished_path(output, shard), {**about, "videos": videos})
    with _going_on_later(unfinished):
        rollouts = rollout(
            policy,
            *asked,
            execution=execution,
            asking=asking,
            measure=measure_doubt if _DOUBT.value else None,
            disturbance=disturbance,
            shard=shard or (0, 1),
            num_envs=_NUM_ENVS.value,
            videos=videos,
            video_dir=output / film_folder(about),
            progress=cli.progress,
            finished=tuple(unfinished.kept),
            on_episode=unfinished.add,
        )
    if shard is None:
        _finish(output, about, rollouts)
    else:
        _finish_part(output, shard, about, rollouts)
    unfinished.remove()
    if shard is None:
        check_failures(rollouts.episodes)


@contextlib.contextmanager
def _going_on_later(unfinished: Any) -> Iterator[None]:
    """Where SIGTERM or Ctrl-C ends what is under way, Interrupted says what is kept."""
    try:
        with termination_requested(at_once=True):
            yield
    except Interrupted as interruption:
        kept = f"{len(unfinished.kept)} episodes are in {unfinished.path}" if unfinished.kept else "no episode was finished"
        raise Interrupted(f"{kept}; start the same command again to go on") from interruption


def _stopping(policy: Any, batch_size: int) -> Any:
    """What the cap, the --stop_... flags and the budget say; None where they say nothing. Raises what `steps_within` raises."""
    from ebt_jax.budget import steps_within

    stopping, budget = _rules(), _BUDGET_MS.value
    if stopping == Stopping() and not budget and not _MAX_STEPS.present:
        return None
    if not budget:
        return stopping
    cap = min(stopping.max_steps, steps_within(policy, budget, batch_size, num_starts=_NUM_STARTS.value))
    logging.info("--budget_ms=%g is --max_steps=%d here", budget, cap)
    return dataclasses.replace(stopping, max_steps=cap)


def _open_loop(policy: Any, asked: Asked) -> tuple[dict[str, Any], str]:
    from ebt_jax.evaluation.open_loop import open_dataset, open_loop, trained_on, which_episodes

    tasks, split = {}, _SPLIT.value or ""
    for name in asked.tasks:
        mixture = open_dataset(policy, _DATA_DIR.value, name, as_trained=True)
        found = open_loop(policy, mixture, split, asked.episodes, asked.seed, sample_steps=_SAMPLE_STEPS.value, progress=cli.progress)
        tasks[name] = {"trained_on": trained_on(policy, name, split), **found}
        print(f"{name}: " + ", ".join(f"{dimension} {error:.4g}" for dimension, error in tasks[name]["rmse"].items()) + " (rmse)")
    relative = sum(found["relative_mse"] for found in tasks.values()) / len(tasks)
    which = ", and ".join(dict.fromkeys(which_episodes(policy, name, split) for name in asked.tasks))
    return {"tasks": tasks, "split": split}, f"action error {relative:.4f} of the mean action's (mean squared), episodes {which}"


def _words(successes: int, episodes: int, interval: Any) -> str:
    low, high = interval
    return f"{successes / episodes:.3f} ({successes} of {episodes} episodes, 95 % interval {low:.3f} to {high:.3f})"


def _disturbed(tasks: Iterable[dict[str, Any]]) -> str:
    found = [task["disturbed"] for task in tasks if "disturbed" in task]
    episodes, successes = (sum(one[name] for one in found) for name in ("episodes", "successes"))
    return f", {episodes} were disturbed ({successes} of them succeeded)" if found else ""


def _stopped(failures: dict[str, int]) -> str:
    from ebt_jax.evaluation.results import in_words

    return f", {sum(failures.values())} could not go on ({in_words(failures)})" if failures else ""


def _metrics(task: dict[str, Any]) -> str:
    extra = {name.removeprefix("mean_").replace("_", " "): value for name, value in task.items() if name.startswith("mean_")}
    return "".join(f", {name} {value:.3f}" for name, value in extra.items())


if __name__ == "__main__":
    cli.run(main, __doc__ or "")
