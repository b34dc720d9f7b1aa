"""Closed loop: fixed initial states, one batched policy call for all environments.

    repeat   a = policy(last H observations)         for every running episode, in one batch of fixed size
             execute some of a, as `execution` says  in the workers
             where an episode ended, begin the next

An episode's result is a function of (policy, task, seed, episode): its noise is drawn from (seed, episode, step), its row is
computed at one batch size, and neither the number of environments nor that of processes or shards enters. One that cannot go on,
because of the policy's answer or of the simulator, ends as a failure that says so, and the others go on; one whose process dies
begins anew.
"""

import collections
import contextlib
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float, UInt8

from ebt_jax import simulators
from ebt_jax.evaluation.execution import History, assemble
from ebt_jax.evaluation.measured import EpisodeResult, Rollouts, join
from ebt_jax.evaluation.messages import Lost, Outcome, Plan, Start
from ebt_jax.evaluation.vector import Environments
from ebt_jax.execution import Chunks, Execution, WarmStart
from ebt_jax.normalize import normalize
from ebt_jax.policy import NotFiniteError, Policy, PolicyOutput
from ebt_jax.simulators.disturbance import UNDISTURBED, Disturbance
from ebt_jax.simulators.rendering import OFF, find_backend
from ebt_jax.simulators.simulator import evaluation_state
from ebt_jax.specs import check_compatible, select_proprio
from ebt_jax.steering import check_request
from ebt_jax.stopping import Stopping
from ebt_jax.types import Keys, Observation

BATCH_SIZE = 16
VIDEO_FPS = 20.0

NOT_FINITE, OBSERVATION_NOT_FINITE, SIMULATOR = "not_finite", "observation_not_finite", "simulator"
"""Why an episode could not go on: the policy's answer or what it was shown is NaN or infinity, the simulator raised an error."""

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]

Measure = Callable[[Policy, Observation, Keys, PolicyOutput], dict[str, Float[np.ndarray, " b"]]]
"""Numbers to note at every decision beside the answer, name -> one a row."""


class Asking(NamedTuple):
    """How the policy is asked: see `Policy.sample_actions`."""

    num_steps: int | None = None
    stopping: Stopping | None = None
    num_starts: int = 1


AS_IT_IS = Asking()


class _Sensors(NamedTuple):
    """What a policy is shown of an observation: of the state the `columns` that it reads, with the disturbance's noise."""

    columns: list[int]
    disturbance: Disturbance
    deviation: Float[np.ndarray, " p"]

    def __call__(self, observation: dict[str, Any], state: int, step: int) -> dict[str, Any]:
        proprio = observation["proprio"][self.columns]
        if self.disturbance.noise:
            proprio = self.disturbance.noisy(proprio, self.deviation, state, step)
        return {**observation, "proprio": proprio}


class _Ended(NamedTuple):
    result: EpisodeResult
    pictures: list[UInt8[np.ndarray, "y x 3"]]
    num_steps: list[int]


class _Running:
    """An episode in its seat."""

    def __init__(self, result: EpisodeResult, horizon: int, execution: Execution, first: Outcome, seen: _Sensors) -> None:
        self.unbegun, self.result, self._seen = result, result._replace(metrics=first.metrics), seen
        self.executed: list[Float[np.ndarray, " a"]] = []
        self.num_steps: list[int] = []
        self.chunks = Chunks(execution)
        self.history = History(horizon, seen(first.observations[-1], result.state, 0))
        self.pictures: list[UInt8[np.ndarray, "y x 3"]] = list(first.pictures)

    @property
    def is_finite(self) -> bool:
        """Whether all that the policy would be shown now is a number."""
        return all(np.isfinite(step["proprio"]).all() for step in self.history.steps()[0])

    def note(self, name: str, value: float) -> None:
        doubt = self.result.doubt
        self.result = self.result._replace(doubt={**doubt, name: [*doubt.get(name, []), value]})

    def add(self, outcome: Outcome, actions: Float[np.ndarray, "n a"]) -> None:
        """What came of `actions` (robot units), of which as many were executed as there are rewards."""
        self.executed += list(actions[: len(outcome.rewards)])
        length = self.result.length + len(outcome.rewards)
        steps = range(length - len(outcome.observations) + 1, length + 1)
        self.history.extend([self._seen(one, self.result.state, step) for one, step in zip(outcome.observations, steps, strict=True)])
        self.pictures += outcome.pictures
        self.result = self.result._replace(
            success=self.result.success or outcome.success,
            total=self.result.total + sum(outcome.rewards),
            length=length,
            metrics=outcome.metrics or self.result.metrics,
        )


def check_asked(policy: Policy, execution: Execution, asking: Asking) -> None:
    """Raises ValueError for a horizon past the chunk's end, and for what the policy's method cannot do."""
    if execution.horizon + execution.committed > policy.specs.action.horizon:
        raise ValueError(
            f"execution_horizon must be in [1, {policy.specs.action.horizon - execution.committed}] (the chunk, less what is committed), "
            f"got {execution.horizon}."
        )
    nothing_yet = WarmStart(np.zeros((0, 0, 0), np.float32), np.zeros(0, np.int64)) if execution.kind == "realtime" else None
    check_request(policy.method, policy.identity.method, *asking, nothing_yet, None)


def rollout(
    policy: Policy,
    suite: str,
    tasks: tuple[str, ...],
    episodes: int,
    seed: int,
    *,
    execution: Execution | None = None,
    asking: Asking = AS_IT_IS,
    measure: Measure | None = None,
    disturbance: Disturbance = UNDISTURBED,
    shard: tuple[int, int] = (0, 1),
    num_envs: int = BATCH_SIZE,
    num_processes: int | None = None,
    batch_size: int = BATCH_SIZE,
    videos: int = 0,
    video_dir: pathlib.Path | None = None,
    progress: Progress = lambda items, total, description: items,
    environments: Environments | None = None,
    keep_going: bool = True,
    finished: Sequence[Rollouts] = (),
    on_episode: Callable[[Rollouts], None] = lambda episode: None,
) -> Rollouts:
    """Runs `episodes` episodes of each task.

    Args:
      execution: how chunks become actions; receding with the policy's own horizon where None.
      measure: what to note at every decision, see `measure_doubt`; costs that much more.
      disturbance: what goes wrong in every episode.
      shard: (i, n), every n-th episode from the i-th on, for n evaluations that are merged.
      num_envs: environments at a time, at most `batch_size`.
      videos: episodes of each task to film, as `video_dir/TASK/NUMBER.mp4`.
      environments: of `open_environments`, which stay open: their processes take seconds to start, and what they have loaded serves the
        next rollouts. New ones for this call alone where None.
      keep_going: ends an episode that cannot go on as a failure; False raises what is wrong, NotFiniteError for the policy's answer and
        RuntimeError for the rest, and no episode has a result.
      finished: what `on_episode` was given in an earlier call that was cut short, all else equal: these episodes are not run again.
      on_episode: is given each episode as it ends, and the calls since the one before; they add up to what is returned.

    Raises ValueError where the suite is not what the policy was trained for, listing every difference, for a horizon past the
    chunk's end, and for what the policy's method cannot do; RuntimeError where environments cannot be made or know no such
    disturbance, and where one episode's process dies twice.
    """
    execution = execution or Execution(horizon=policy.execution_horizon)
    check_asked(policy, execution, asking)
    number, shards = shard
    if not 0 <= number < shards:
        raise ValueError(f"shard must be (i, n) with 0 <= i < n, got {shard}.")
    if not 1 <= num_envs <= batch_size:
        raise ValueError(f"num_envs must be in [1, {batch_size}] (the batch size), got {num_envs}.")
    embodiment = simulators.embodiment(suite)
    shown, columns = select_proprio(embodiment.specs(), policy.specs)
    check_compatible(policy.specs, shown, f"suite {suite!r}")
    masked = masked_cameras(policy, suite)
    if masked:
        logging.warning("the policy acts without its cameras %s, which suite %r does not have: they are masked.", ", ".join(masked), suite)
    every = max(1, round(embodiment.control_rate_hz / VIDEO_FPS)) if videos else 0
    every_episode = [EpisodeResult(task, n, evaluation_state(seed, n), False, 0.0, 0, {}, {}) for task in tasks for n in range(episodes)]
    mine, parts = every_episode[number::shards], list(finished)
    if not mine:
        raise ValueError(f"shards must be at most the {len(every_episode)} episodes, got {shards}.")
    ended = {(one.task, one.number) for part in parts for one in part.episodes}
    queue = collections.deque(one for one in mine if (one.task, one.number) not in ended)
    answers = _Answers(policy, seed, execution, asking, batch_size, measure, keep_going)
    sensors = _Sensors(columns, disturbance, policy.statistics.proprio.std)
    if environments is not None and environments.num_envs > batch_size:
        raise ValueError(f"environments must be at most {batch_size} (the batch size), got {environments.num_envs}.")
    total = len(queue)
    with contextlib.ExitStack() as stack:
        if environments is None and queue:
            environments = stack.enter_context(open_environments(policy, suite, min(num_envs, total), num_processes, filmed=videos > 0))
        running = _run(environments, queue, answers, execution, sensors, videos, every) if environments else ()
        begun = time.perf_counter()
        for result, pictures, num_steps in progress(running, total, "episodes"):
            films = ()
            if pictures and video_dir is not None:
                from ebt_jax.report.video import write_video  # an encoder, which evaluation workers need not have

                films = (f"{result.task}/{result.number:03d}.mp4",)
                write_video(video_dir / films[0], np.stack(pictures), embodiment.control_rate_hz / every)
            seconds, compiling = answers.take_seconds()
            now = time.perf_counter()
            parts.append(Rollouts([result], num_steps, seconds, batch_size, now - begun - compiling, films))
            on_episode(parts[-1])
            begun = now
    return join(parts, tasks)


def open_environments(
    policy: Policy, suite: str, num_envs: int = BATCH_SIZE, num_processes: int | None = None, filmed: bool = False
) -> Environments:
    """Environments that show what the policy sees, for several `rollout` one after the other; a context manager.

    Args:
      filmed: rendered, too, where the machine can: for videos.
    """
    environ = {"MUJOCO_GL": renderer(policy, suite, filmed)}
    return Environments(suite, _cameras(policy, suite), num_envs, num_processes, environ)


def renderer(policy: Policy, suite: str, filmed: bool = False) -> str:
    """MUJOCO_GL of the processes that `open_environments` starts: what draws their frames, which decides what a camera's policy sees."""
    drawn = bool(_cameras(policy, suite)) or filmed
    return (find_backend() if drawn and simulators.SUITES[suite].mujoco else None) or OFF


def _cameras(policy: Policy, suite: str) -> tuple[str, ...]:
    """Those of the suite's that the policy sees."""
    wanted = {camera.name for camera in policy.specs.observation.cameras}
    return tuple(camera.name for camera in simulators.embodiment(suite).cameras if camera.name in wanted)


def masked_cameras(policy: Policy, suite: str) -> list[str]:
    """Cameras of the policy that the suite does not have, goals among them: in closed loop it acts without."""
    there = {camera.name for camera in simulators.embodiment(suite).cameras}
    return [camera.name for camera in policy.specs.observation.cameras if camera.name not in there]


def measure_doubt(policy: Policy, observation: Observation, keys: Keys, output: PolicyOutput) -> dict[str, Float[np.ndarray, " b"]]:
    """The statistics of `Policy.doubt`, and the level of the energy, which they are to be better than.

    They are of what the policy answers with its own number of steps, from noise: for an episode with `AS_IT_IS` and no warm starts.
    """
    return {**policy.doubt(observation, keys)._asdict(), "energy": output.energy}


def mean_second_difference(actions: Float[np.ndarray, "n a"]) -> float:
    """Mean of |a_{i+1} - 2 a_i + a_{i-1}| over i and the numbers of an action: 0 for even motion, and for fewer than three actions."""
    return float(np.mean(np.abs(np.diff(actions, n=2, axis=0)))) if len(actions) > 2 else 0.0


def _run(
    environments: Environments,
    queue: collections.deque[EpisodeResult],
    answers: "_Answers",
    execution: Execution,
    sensors: _Sensors,
    videos: int,
    every: int,
) -> Iterator[_Ended]:
    """The loop of this module; yields each episode as it ends."""
    running: dict[int, _Running] = {}
    history = answers.policy.specs.observation.horizon
    lost: set[tuple[str, int]] = set()

    def end(seat: int, failure: str = "", said: str = "") -> _Ended:
        """The episode of this seat, which becomes free."""
        ended = running.pop(seat)
        jitter = 0.0
        if ended.executed:
            jitter = mean_second_difference(np.asarray(normalize(np.stack(ended.executed), answers.policy.action_normalizer)))
        result = ended.result._replace(jitter=jitter)
        result = _failed(result, failure, said, answers.keep_going) if failure else result
        return _Ended(result, ended.pictures, ended.num_steps)

    def lose(episode: EpisodeResult, why: str) -> None:
        """Puts an episode whose process died at the end of the queue, once. Raises RuntimeError the second time."""
        if (episode.task, episode.number) in lost:
            raise RuntimeError(f"episode {episode.number} of {episode.task} lost its process twice: {why}")
        lost.add((episode.task, episode.number))
        queue.append(episode)

    while queue or running:
        free = [seat for seat in range(environments.num_envs) if seat not in running]
        begun = {seat: queue.popleft() for seat in free[: len(queue)]}
        wrong = sensors.disturbance
        starts = {seat: Start(new.task, new.state, every if new.number < videos else 0, wrong) for seat, new in begun.items()}
        for seat, outcome in environments.start(starts).items():
            if isinstance(outcome, Lost):
                lose(begun[seat], outcome.message)
            elif outcome.failure:
                yield _Ended(_failed(begun[seat], SIMULATOR, outcome.failure, answers.keep_going), [], [])
            else:
                running[seat] = _Running(begun[seat], history, execution, outcome, sensors)
        for seat in [seat for seat, one in running.items() if not one.is_finite]:
            yield end(seat, OBSERVATION_NOT_FINITE)
        chunks = dict(zip(running, answers(list(running.values())), strict=True))
        for seat in [seat for seat, chunk in chunks.items() if np.isnan(chunk).any()]:
            yield end(seat, NOT_FINITE)
        plans = {seat: Plan(one.chunks.next(chunks[seat]), history) for seat, one in running.items()}
        for seat, outcome in environments.execute(plans).items():
            if isinstance(outcome, Lost):
                lose(running.pop(seat).unbegun, outcome.message)
                continue
            running[seat].add(outcome, plans[seat].actions)
            if outcome.done:
                yield end(seat, SIMULATOR if outcome.failure else "", outcome.failure)


def _failed(result: EpisodeResult, failure: str, said: str, keep_going: bool) -> EpisodeResult:
    """The result of an episode that cannot go on; RuntimeError where the others shall not either."""
    words = f"episode {result.number} of {result.task} cannot go on after {result.length} steps: {failure}. {said}"
    if not keep_going:
        raise RuntimeError(words)
    logging.warning("%s", words)
    return result._replace(success=False, failure=failure)


class _Answers:
    """The policy, asked for all running episodes at once, at one batch size; notes what the answers cost."""

    def __init__(
        self,
        policy: Policy,
        seed: int,
        execution: Execution,
        asking: Asking,
        batch_size: int,
        measure: Measure | None,
        keep_going: bool,
    ) -> None:
        self.policy, self._measure, self.keep_going = policy, measure, keep_going
        self._seconds: dict[str, list[float]] = collections.defaultdict(list)
        self._first_seconds = 0.0
        self._seed, self._execution, self._asking, self._batch_size = seed, execution, asking, batch_size
        self._compiled = False

    def __call__(self, running: list[_Running]) -> list[np.ndarray]:
        """One chunk [h a] per episode, all NaN where it is not finite."""
        count = len(running)
        if not count:
            return []
        padded = running + running[:1] * (self._batch_size - count)
        observation = assemble([one.history for one in running], self.policy.specs.observation, self._batch_size)
        numbers, steps = (np.array([getattr(one.result, name) for one in padded]) for name in ("number", "length"))
        keys = self.policy.sample_keys(self._seed, numbers, steps)
        steps, stopping, starts = self._asking
        begun = time.perf_counter()
        if not self._compiled:
            logging.info("compiling for %d observations at a time", self._batch_size)
        try:
            output: PolicyOutput = self.policy.sample_actions(
                observation, keys, steps, stopping=stopping, num_starts=starts, warm_start=self._warm_start(padded)
            )
        except NotFiniteError as error:
            if not self.keep_going:
                raise
            output = error.output  # the other rows are other episodes'
        for one, taken in zip(running, output.num_steps.tolist(), strict=False):
            one.num_steps.append(taken)
        if self._measure is not None:
            for name, values in self._measure(self.policy, observation, keys, output).items():
                for one, value, chunk in zip(running, values, output.actions, strict=False):
                    if not np.isnan(chunk).any():
                        one.note(name, float(value))
        if self._compiled:
            for stage, seconds in output.seconds.items():
                self._seconds[stage].append(seconds)
        else:
            self._first_seconds = time.perf_counter() - begun  # with what is measured beside, which is compiled too
        self._compiled = True
        return list(output.actions[:count])

    def take_seconds(self) -> tuple[dict[str, list[float]], float]:
        """Of every call since this was last asked: those of the stages, and those of the first call, which compiles."""
        taken = dict(self._seconds), self._first_seconds
        self._seconds, self._first_seconds = collections.defaultdict(list), 0.0
        return taken

    def _warm_start(self, running: list[_Running]) -> WarmStart | None:
        if self._execution.kind != "realtime":
            return None
        shape = (self.policy.specs.action.horizon, len(self.policy.specs.action.dimensions))
        actions, committed = zip(*(one.chunks.warm_start(shape) for one in running), strict=True)
        return WarmStart(np.stack(actions), np.array(committed))
