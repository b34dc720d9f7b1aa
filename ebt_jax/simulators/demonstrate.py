"""Scripted experts show their tasks: episodes as plain arrays, ready to be written as RLDS.

Simulators run in processes of their own: it is faster, and the OpenGL of Mesa and TensorFlow, which the writing process loads,
do not live in one process (each brings its LLVM).
"""

import collections
import concurrent.futures
import functools
import itertools
import multiprocessing
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import logging

from ebt_jax import simulators
from ebt_jax.data.spec import DatasetSpec
from ebt_jax.data.write import Demonstration
from ebt_jax.simulators.simulator import Simulator, demonstration_state

HOLD = 5
"""Steps kept after the first success, so that a chunk begun near the end still sees it."""

PATIENCE = 20
"""Failures at the start after which an expert counts as unable."""


def demonstrations(
    suite: str, task: str, cameras: tuple[str, ...], count: int, seed: int, noise: float, num_processes: int | None = None
) -> Iterator[Demonstration]:
    """The first `count` successful episodes of a task, in the order of their initial states, whatever the number of processes.

    Raises RuntimeError for an expert that does not succeed at all.
    """
    workers = num_processes or os.cpu_count() or 1
    kept = tried = 0
    with concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        states = (demonstration_state(seed, attempt) for attempt in itertools.count())
        ahead = collections.deque(pool.submit(_demonstrate, suite, task, cameras, next(states), noise) for _ in range(2 * workers))
        while kept < count:
            episode = ahead.popleft().result()
            ahead.append(pool.submit(_demonstrate, suite, task, cameras, next(states), noise))
            tried += 1
            if episode is not None:
                kept += 1
                yield episode
            elif kept == 0 and tried == PATIENCE:
                raise RuntimeError(f"the expert of {task!r} must succeed sometimes, got 0 of {tried} episodes. Lower the noise.")
        pool.shutdown(cancel_futures=True)
    logging.info("%s: kept %d of %d episodes", task, kept, tried)


def demonstrate(simulator: Simulator, seed: int, noise: float) -> Demonstration | None:
    """The expert's episode from initial state `seed`, cut `HOLD` steps after its first success; None if it never succeeds.

    What is executed is the expert's action plus Gaussian noise of `noise` times the action's limit (its half range; the gripper
    is spared), what is recorded is the expert's action. The noise takes the hand off the expert's path and the labels show the
    way back, so a policy meets its own mistakes in the data (DART, Laskey et al. 2017). A pure function of (task, seed, noise).
    """
    generator = np.random.default_rng([seed, 1])
    space = simulator.action_space
    grippers = np.array([dimension.kind == "gripper" for dimension in simulator.embodiment.action])
    noise_std = np.where(grippers, 0.0, noise * (space.high - space.low) / 2)
    observation, _ = simulator.reset(seed=seed)
    observations, actions, rewards = [], [], []
    left, truncated = HOLD, False
    success = False
    while not truncated and left > 0:
        action = simulator.expert_action()
        observations.append(observation)
        actions.append(action)
        observation, reward, terminated, truncated, _ = simulator.step(action + generator.normal(size=action.shape) * noise_std)
        rewards.append(reward)
        success = success or terminated
        left -= success
    if not success:
        return None
    return Demonstration(
        observations=_stack(observations),
        actions=np.stack(actions),
        rewards=np.array(rewards, np.float32),
        instruction=simulator.instruction,
        terminal=True,
        source=f"{type(simulator).__name__} initial state {seed}",
    )


def dataset_spec(name: str, suite: str, cameras: tuple[str, ...], source: str) -> DatasetSpec:
    """What `demonstrate` records in this suite."""
    embodiment = simulators.embodiment(suite)
    return DatasetSpec(
        name=name,
        action_keys=("action",),
        action=embodiment.action,
        proprio_keys=("observation/state",),
        proprio=embodiment.proprio,
        cameras={camera: f"observation/image_{camera}" for camera in cameras},
        language_key="language_instruction",
        action_frame=embodiment.frame,
        control_rate_hz=embodiment.control_rate_hz,
        source=source,
    )


def _demonstrate(suite: str, task: str, cameras: tuple[str, ...], state: int, noise: float) -> Demonstration | None:
    return demonstrate(_simulator(suite, task, cameras), state, noise)


@functools.lru_cache(maxsize=1)
def _simulator(suite: str, task: str, cameras: tuple[str, ...]) -> Simulator:
    """The one simulator of a worker process."""
    return simulators.make(suite, task, cameras)


def _stack(observations: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    images = {f"image_{name}": np.stack([o["images"][name] for o in observations]) for name in observations[0]["images"]}
    return {"state": np.stack([o["proprio"] for o in observations]), **images}
