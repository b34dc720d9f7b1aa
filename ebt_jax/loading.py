"""A path -> the `Policy` that lies there."""

import dataclasses
import hashlib
import pathlib

import jax
import numpy as np

from ebt_jax.artifact import MANIFEST, ArtifactError, load_artifact
from ebt_jax.normalize import make_normalizer
from ebt_jax.policy import Experiment, Identity, Policy
from ebt_jax.types import Params

CHOOSING = ("validation_fraction", "validation_folds", "validation_fold", "seed", "on_bad", "normalization")
"""The settings of a run's data that say, with its filters, which episodes it learnt from and which it held out; filters count in
normalised units."""


def load(path: str | pathlib.Path, *, ema: bool = True, robot: str = "") -> Policy:
    """The policy of an exported artifact, or of a run: a workdir (its newest checkpoint), `WORKDIR/checkpoints`, or one step folder in it.

    Args:
      ema: the moving average of the parameters, which is what evaluation and robots use; False takes the raw ones, of a run only.
      robot: of a run on several datasets, the one whose robot the policy acts as, in that dataset's numbers and by its statistics; "" is
        the heaviest, and all that an artifact has.

    Raises CheckpointError where there is none, or where it does not fit its own configuration; ArtifactError for an artifact that must
    not be used or lies in a bucket, and where there is none and the packages that read a run are not installed.
    """
    if (pathlib.Path(path) / MANIFEST).is_file():
        if not ema:
            raise ValueError(f"ema must be True for an artifact, which holds no other parameters, got False for {path}.")
        policy = load_artifact(pathlib.Path(path))
        if robot not in ("", own := policy.identity.robot):
            raise ValueError(f"robot must be {own or 'left out'} for this artifact, which acts as no other, got {robot!r}. Export another.")
        return policy
    try:  # Orbax and the model stack, which only checkpoints need: where artifacts run they are not installed
        from etils import epath

        from ebt_jax.training.trained import acting_as, read_trained
    except ModuleNotFoundError as error:
        raise ArtifactError(
            f"policy must be an artifact, a folder on a disk with a {MANIFEST}, where the training packages are not installed (no "
            f"{error.name}), got {path}. Correct the path or copy the whole folder; a run needs them: pip install -e ."
        ) from error
    if "://" in str(path) and (epath.Path(path) / MANIFEST).exists():
        raise ArtifactError(f"an artifact must lie on a disk, got {path}. Copy the folder, or mount the bucket.")
    trained, acts_as = acting_as(read_trained(path, "policy", ema=ema), robot)
    step, settings, specs, statistics, method, params, calibration, _ = trained
    return Policy(
        method=method,
        params=params,
        specs=specs,
        statistics=statistics,
        action_normalizer=make_normalizer(statistics.action, settings.data.normalization, specs.action.dimensions),
        proprio_normalizer=make_normalizer(statistics.proprio, settings.data.proprio_normalization),
        sample_steps=settings.sample_steps or method.sample_steps,
        execution_horizon=settings.execution_horizon,
        identity=Identity(str(path), parameters_sha256(params), step, settings.method["name"], acts_as),
        calibration=calibration,
        experiment=Experiment(
            datasets=tuple(settings.data.weights),
            held_out={name: getattr(settings.data, name) for name in CHOOSING} | {"filters": dataclasses.asdict(settings.data.filters)},
            evaluation={**dataclasses.asdict(settings.evaluation), "tasks": list(settings.evaluation.tasks)},
            init_from=settings.init_from,
        ),
    )


def parameters_sha256(params: Params) -> str:
    """Hash of every leaf's path, shape, dtype and bytes: equal exactly where the parameters are."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)}{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
