"""Open loop: from every demonstrated observation, how far is the policy's chunk from what the demonstrator did?

Beside it stands the same error of always acting the training mean: 1 in `relative_mse` is no better than that. Open-loop error
does not rank policies in closed loop; it finds faults.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ebt_jax.data.mixture import Episode, Mixture, episodes, open_mixture
from ebt_jax.data.oxe import describe, find_dataset
from ebt_jax.data.settings import DataSettings, Filters
from ebt_jax.policy import Policy
from ebt_jax.specs import check_compatible
from ebt_jax.types import Observation

BATCH_SIZE = 64

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]

Errors = tuple[Float[np.ndarray, "n h a"], Float[np.ndarray, "n h a"], Bool[np.ndarray, "n h"]]
"""Of the policy's chunks, of the mean action, and which rows of the chunks are real."""


def open_dataset(policy: Policy, data_dir: str, name: str, cache_dir: str = "", *, as_trained: bool = False) -> Mixture:
    """A dataset as this policy reads it.

    Args:
      as_trained: a dataset that the policy's run learnt from has its splits and filters, so that "train" is what the run learnt from and
        "validation" what it held out. Otherwise, and of other datasets, "train" is all episodes but those of the dataset's own
        validation split.

    Raises ValueError listing every difference where the dataset is not what the policy was trained on.
    """
    known = policy.experiment
    learnt = known is not None and name in known.datasets  # then what it lacks, as instructions, was masked in training, too
    chosen: dict[str, Any] = dict(known.held_out) if as_trained and known and learnt else {"validation_fraction": 0.0}
    chosen["filters"] = Filters(**chosen.get("filters", {}))
    spec = policy.specs.observation
    state = tuple(dimension.name for dimension in spec.proprio)
    there = {dimension.name for dimension in describe(find_dataset(data_dir, name)).spec.proprio}
    settings = DataSettings(
        data_dir=data_dir,
        mixture=name,
        observation_horizon=spec.horizon,
        action_horizon=policy.specs.action.horizon,
        image_size=spec.cameras[0].height if spec.cameras else 64,
        cameras=tuple(camera.name for camera in spec.cameras),
        language=spec.language.kind,
        tokenizer=spec.language if spec.language.kind == "tokens" else "",
        proprio=state if there.issuperset(state) else ("*",),
        cache_dir=cache_dir,
        combine="union" if learnt else "equal",
        **chosen,
    )
    mixture = open_mixture(settings).alone
    check_compatible(policy.specs, mixture.specs, f"dataset {name!r}")
    if as_trained and known and "filters" in known.held_out and name == policy.identity.robot:  # older artifacts do not say all
        check_same(policy, mixture)
    return mixture


def check_same(policy: Policy, mixture: Mixture) -> None:
    """Raises ValueError where the training episodes are not as many as the run's: then nobody knows which those were."""
    then, now = ((found.num_episodes, found.num_transitions) for found in (policy.statistics, mixture.statistics))
    if then != now:
        raise ValueError(
            f"{mixture.main.folder.path} must hold what the policy's run learnt from, {then[0]} training episodes of {then[1]} windows, "
            f"got {now[0]} of {now[1]}: what it held out is no longer known. Bring the files back."
        )


def trained_on(policy: Policy, name: str, split: str) -> bool | None:
    """Whether the policy learnt from this split of `open_dataset(..., as_trained=True)`; None where nobody noted that.

    What its run did not learn from, a checkpoint that it started from may have.
    """
    if policy.experiment is None:
        return None
    learnt = split == "train" and name in policy.experiment.datasets
    return True if learnt else None if policy.experiment.init_from else False


def which_episodes(policy: Policy, name: str, split: str) -> str:
    """The same in words, to stand behind "episodes"."""
    if policy.experiment is None:
        return "that the policy may have been trained on"
    if trained_on(policy, name, split) is None:
        own = "held out of its run" if name in policy.experiment.datasets else "of a dataset that its run did not learn from"
        return f"{own} (but it started from {policy.experiment.init_from}, which may have)"
    if name not in policy.experiment.datasets:
        return "of a dataset the policy was not trained on"
    return "the policy was trained on" if split == "train" else "held out of the policy's training"


def open_loop(
    policy: Policy,
    mixture: Mixture,
    split: str,
    num_episodes: int,
    seed: int,
    *,
    sample_steps: int | None = None,
    progress: Progress = lambda items, total, description: items,
) -> dict[str, Any]:
    """Errors over the first `num_episodes` episodes of `split` (0: all), over real entries of the chunks.

    Returns `mse` and `mean_action_mse` (normalised), `relative_mse` their ratio, and per action dimension, in its own unit, the
    root mean square of the error: `rmse` over the chunk, `first_rmse` of its first action, `mean_action_rmse`; and `episode`, the name,
    length and normalised errors of each.
    """
    available = sum(len(part.episodes) for part in mixture.split(split))
    count = min(num_episodes or available, available)
    scale = np.asarray(policy.action_normalizer.scale)
    errors, each = [], []
    for number, episode in zip(range(count), progress(episodes(mixture, split), count, "episodes"), strict=False):
        errors.append(found := _episode_errors(policy, episode, number, seed, sample_steps))
        mse, mean_mse = _mse(found, scale)
        each.append({"name": episode.name, "length": len(episode.actions), "mse": mse, "mean_action_mse": mean_mse})
    error, mean_error, mask = (np.concatenate(part) for part in zip(*errors, strict=True))
    mse, mean_mse = _mse((error, mean_error, mask), scale)
    names = [dimension.name for dimension in policy.specs.action.dimensions]
    return {
        "episodes": count,
        "steps": len(error),
        "mse": mse,
        "mean_action_mse": mean_mse,
        "relative_mse": mse / mean_mse,
        "rmse": _rmse(names, error[mask]),
        "first_rmse": _rmse(names, error[:, 0]),
        "mean_action_rmse": _rmse(names, mean_error[mask]),
        "episode": each,
    }


def _mse(errors: Errors, scale: Float[np.ndarray, " a"]) -> tuple[float, float]:
    """Of the policy and of the mean action, normalised, over real entries."""
    error, mean_error, mask = errors
    mse, mean_mse = (float(np.mean((part / scale)[mask] ** 2)) for part in (error, mean_error))
    return mse, mean_mse


def _episode_errors(policy: Policy, episode: Episode, number: int, seed: int, sample_steps: int | None) -> Errors:
    """From every step of an episode."""
    length, horizon = len(episode.actions), policy.specs.action.horizon
    ahead = np.arange(length)[:, None] + np.arange(horizon)
    target, mask = episode.actions[np.minimum(ahead, length - 1)], ahead < length
    predicted = []
    for start in range(0, length, BATCH_SIZE):
        rows = np.minimum(np.arange(start, start + BATCH_SIZE), length - 1)
        observation = take(episode.observation, rows)
        keys = policy.sample_keys(seed, np.full(BATCH_SIZE, number), rows)
        predicted.append(policy.sample_actions(observation, keys, sample_steps).actions)
    mean = policy.statistics.action.mean.astype(np.float32)
    return np.concatenate(predicted)[:length] - target, mean - target, mask


def take(observation: Observation, rows: np.ndarray) -> Observation:
    """These rows of every array."""
    pick = {name: {camera: values[rows] for camera, values in getattr(observation, name).items()} for name in ("images", "image_masks")}
    arrays = {name: getattr(observation, name)[rows] for name in ("proprio", "language", "language_mask", "timestep_mask")}
    return Observation(**pick, **arrays)


def _rmse(names: Sequence[str], errors: Float[np.ndarray, "n a"]) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, np.sqrt((errors**2).mean(0)), strict=True)}
