"""Energies of what was demonstrated: which chunks of a dataset fit their observations worst?

Works on any dataset that the policy's specs fit, whether the policy learnt from it or not; what it has learnt by heart it no longer doubts.
"""

import csv
import io
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ebt_jax.data.batches import gather
from ebt_jax.data.mixture import Mixture
from ebt_jax.normalize import normalize, unnormalize
from ebt_jax.policy import Policy
from ebt_jax.types import Batch, Keys, Observation, Params
from ebt_jax.uncertainty import Fit, fit
from ebt_jax.whole import write_whole

BATCH_SIZE = 64

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]

Scorer = Callable[[Observation, Float[np.ndarray, "b h a"], Keys], tuple[Fit, Float[np.ndarray, "b h a"]]]


class Audit(NamedTuple):
    """One row a chunk, in the order of the dataset.

    Attributes:
      number: the window's in its split.
      episode: place of its episode in the split; `names` and `instructions` are indexed by it.
      step: of the chunk's first action.
      fit: the statistics.
    """

    number: Int[np.ndarray, " n"]
    episode: Int[np.ndarray, " n"]
    step: Int[np.ndarray, " n"]
    fit: Fit
    names: list[str]
    instructions: list[str]


def audit(
    policy: Policy,
    mixture: Mixture,
    split: str,
    references: Float[np.ndarray, "r h a"],
    *,
    every: int = 1,
    temperature: float = 1.0,
    seed: int = 0,
    progress: Progress = lambda items, total, description: items,
) -> Audit:
    """The statistics of every `every`-th chunk of the main dataset's split; of chunks past an episode's end only the first, if all are.

    Raises ValueError where the policy's method has no energy.
    """
    (part,) = (part for dataset, part in zip(mixture.datasets, mixture.split(split), strict=True) if dataset is mixture.main)
    numbers, score = np.arange(len(part)), make_scorer(policy, references, temperature)
    episodes, steps = part.locate(numbers)
    whole = (steps % every == 0) & ((steps + policy.specs.action.horizon <= episodes["length"]) | (steps == 0))
    numbers, steps, places = numbers[whole], steps[whole], part.places(numbers[whole])
    if not len(numbers):
        raise ValueError(f"split {split!r} must hold a chunk that lies within an episode, got none of {len(part)} windows.")
    found = []
    for start in progress(range(0, len(numbers), BATCH_SIZE), -(-len(numbers) // BATCH_SIZE), "batches of chunks"):
        rows = np.minimum(np.arange(start, start + BATCH_SIZE), len(numbers) - 1)
        batch = chunks(mixture, split, numbers[rows])
        found.append(score(batch.observation, np.asarray(batch.actions), policy.sample_keys(seed, places[rows], steps[rows]))[0])
    columns, texts = part.index.columns, part.index.texts
    last = part.episodes["start"] + part.episodes["length"] - 1
    return Audit(
        number=numbers,
        episode=places,
        step=steps,
        fit=Fit(*(np.concatenate(values)[: len(numbers)] for values in zip(*found, strict=True))),
        names=[f"{part.index.files[e['shard']].rsplit('/', 1)[-1]}@{e['position']}" for e in part.episodes],
        instructions=[texts[columns["text"][row]] if "text" in columns else "" for row in last],
    )


def episode_means(found: Audit, statistic: str) -> Float[np.ndarray, " e"]:
    """Mean of a statistic over each episode's chunks; NaN for an episode without any."""
    values, count = getattr(found.fit, statistic), np.bincount(found.episode, minlength=len(found.names))
    total = np.bincount(found.episode, weights=values, minlength=len(found.names))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def write_csv(path: pathlib.Path, found: Audit, order: Int[np.ndarray, " n"], statistic: str) -> pathlib.Path:
    """One line a chunk in this order, with all statistics and its episode's mean of one; whole or not at all."""
    means, table = episode_means(found, statistic), io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(["episode", "name", "step", "instruction", *Fit._fields, f"episode_{statistic}"])
    for row in order:
        episode = int(found.episode[row])
        about = (episode, found.names[episode], int(found.step[row]), found.instructions[episode])
        writer.writerow([*about, *(f"{values[row]:.6g}" for values in found.fit), f"{means[episode]:.6g}"])
    write_whole(path, table.getvalue())
    return path


def chunks(mixture: Mixture, split: str, numbers: Int[np.ndarray, " b"]) -> Batch:
    """These windows of the main dataset's split, robot units."""
    main = mixture.main
    return main.align(gather(getattr(main, split), numbers, mixture.specs), mixture.specs)


def make_scorer(policy: Policy, references: Float[np.ndarray, "r h a"], temperature: float = 1.0) -> Scorer:
    """(observation, chunks in robot units, keys) -> their statistics and the policy's own answers (robot units, before limits).

    Raises ValueError where the policy's method has no energy.
    """
    method, normalizer = policy.method, policy.action_normalizer
    energy = method.energy
    if energy is None:
        raise ValueError(f"an audit must use a policy that has an energy, got method {policy.identity.method!r} without.")

    @jax.jit
    def score(params: Params, observation: Observation, actions: Float[Array, "b h a"], keys: Keys) -> tuple[Fit, Float[Array, "b h a"]]:
        context = method.encode(params, observation)
        answers = method.sample(params, context, keys, policy.sample_steps).actions
        given, others = (jnp.asarray(normalize(x, normalizer)) for x in (actions, jnp.asarray(references, jnp.float32)))
        found = fit(lambda chunk: energy(params, context, chunk), given, answers, others, temperature)
        return found, jnp.asarray(unnormalize(answers, normalizer))

    def scorer(observation: Observation, actions: Float[np.ndarray, "b h a"], keys: Keys) -> tuple[Fit, Float[np.ndarray, "b h a"]]:
        found, answers = score(policy.params, policy.prepare(observation), jnp.asarray(actions, jnp.float32), keys)
        return Fit(*map(np.asarray, found)), np.asarray(answers)

    return scorer


def reference_chunks(mixture: Mixture, count: int, seed: int = 0) -> Float[np.ndarray, "r h a"]:
    """`count` whole chunks drawn from the main dataset's training episodes, robot units; fewer where it has fewer.

    Raises ValueError where no episode is as long as a chunk.
    """
    part = mixture.main.train
    episodes, steps = part.locate(np.arange(len(part)))
    whole = np.flatnonzero(steps + mixture.specs.action.horizon <= episodes["length"])
    if not len(whole):
        raise ValueError(
            f"episodes must be at least {mixture.specs.action.horizon} steps long to take chunks from, got none in the dataset."
        )
    drawn = np.random.default_rng(seed).permutation(whole)[:count]
    return np.asarray(chunks(mixture, "train", np.sort(drawn)).actions, np.float32)
