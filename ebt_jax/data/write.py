"""Episodes as plain arrays in, an RLDS folder out, laid out as Open X-Embodiment ships them.

    OUTPUT/NAME/1.0.0/
      features.json       what every step holds            } opened again by
      dataset_info.json   splits and shards                } tfds.builder_from_directory
      NAME-train.tfrecord-00000-of-00001                   }
      ebt_spec.json       which feature is what, in which unit

TensorFlow is imported when a folder is written, and nowhere else in the project.
"""

import contextlib
import itertools
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from ebt_jax.data import remote
from ebt_jax.data.spec import SPEC_FILE, DatasetSpec
from ebt_jax.data.standardize import check_grippers, join

VERSION = "1.0.0"


class Demonstration(NamedTuple):
    """One episode, robot units; row i of everything belongs to step i.

    Attributes:
      observations: feature name -> [n ...]; uint8 [n y x 3] is a picture, anything else is stored as float32.
      actions: the action of each step, the last one included.
      rewards: what the environment paid for that action.
      instruction: the task in words.
      terminal: True where the episode ended because the task did, False where it was cut.
      source: where the episode comes from; kept as `episode_metadata/file_path`.
    """

    observations: Mapping[str, Shaped[np.ndarray, "n *shape"]]
    actions: Float[np.ndarray, "n a"]
    rewards: Float[np.ndarray, " n"]
    instruction: str
    terminal: bool
    source: str


def write_rlds(output: str | os.PathLike[str], spec: DatasetSpec, episodes: Iterable[Demonstration], description: str) -> pathlib.Path:
    """Writes `episodes` in their order as split "train" of `output/spec.name/1.0.0`, and returns that folder.

    Episodes are taken one at a time, so memory holds one, and the folder appears whole or not at all. Pictures are stored
    losslessly (PNG). The same episodes give the same records, byte by byte.

    Raises FileExistsError where the folder exists, ValueError where it would lie in a bucket, there is no episode or one is not what
    `spec` says, ImportError without TensorFlow.
    """
    folder = remote.on_disk("output", output) / spec.name / VERSION
    if folder.exists():
        raise FileExistsError(f"output must be a new folder, got {folder}. Remove it or choose another --output.")
    iterator = iter(episodes)
    first = next(iterator, None)
    if first is None:
        raise ValueError(f"dataset {spec.name!r} must have at least one episode, got none.")
    _check(spec, first)
    pathlib.Path(output).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=f".{spec.name}.") as unfinished:
        _write(spec, first, itertools.chain([first], iterator), pathlib.Path(unfinished), description)
        whole = pathlib.Path(unfinished) / spec.name / VERSION
        (whole / SPEC_FILE).write_text(spec.to_json() + "\n")
        folder.parent.mkdir(exist_ok=True)
        whole.rename(folder)
    return folder


def _write(spec: DatasetSpec, first: Demonstration, episodes: Iterable[Demonstration], output: pathlib.Path, description: str) -> None:
    try:
        import tensorflow  # noqa: F401
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError("writing RLDS needs TensorFlow: pip install 'ebt_jax[tf]'.") from error

    scalar, features = tfds.features.Scalar, tfds.features
    step = {
        "observation": {name: _feature(features, values) for name, values in first.observations.items()},
        "action": features.Tensor(shape=first.actions.shape[1:], dtype=np.float32),
        "reward": scalar(np.float32),
        "discount": scalar(np.float32),
        "is_first": scalar(np.bool_),
        "is_last": scalar(np.bool_),
        "is_terminal": scalar(np.bool_),
        "language_instruction": features.Text(),
    }

    class Rlds(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = spec.name
        VERSION = tfds.core.Version(VERSION)
        pkg_dir_path = code_path = None  # the dataset has no module of its own to look for checksums in

        def _info(self) -> tfds.core.DatasetInfo:
            episode = {"steps": features.Dataset(step), "episode_metadata": {"file_path": features.Text()}}
            return tfds.core.DatasetInfo(
                builder=self, description=description, features=features.FeaturesDict(episode), disable_shuffling=True
            )

        def _split_generators(self, download_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
            for index, episode in enumerate(episodes):
                _check(spec, episode)
                yield index, {"steps": list(_steps(episode)), "episode_metadata": {"file_path": episode.source}}

    offline = tfds.download.DownloadConfig(try_download_gcs=False)
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as downloads:
        Rlds(data_dir=output, file_format="tfrecord").download_and_prepare(download_dir=downloads, download_config=offline)
    for shard in (output / spec.name / VERSION).glob("*.tfrecord-*"):
        _put_in_order(shard)


def _put_in_order(shard: pathlib.Path) -> None:
    """Writes each record anew, its features in order of name: protobuf writes them in an order that is another in every process."""
    import tensorflow as tf

    ordered = shard.with_name(f".{shard.name}")
    with tf.io.TFRecordWriter(str(ordered)) as writer:
        for record in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator():
            writer.write(tf.train.Example.FromString(bytes(record)).SerializeToString(deterministic=True))
    ordered.replace(shard)


def _is_picture(values: Shaped[np.ndarray, "n *shape"]) -> bool:
    return values.dtype == np.uint8 and values.ndim == 4 and values.shape[-1] == 3


def _feature(features: Any, values: Shaped[np.ndarray, "n *shape"]) -> Any:
    if _is_picture(values):
        return features.Image(shape=values.shape[1:], encoding_format="png")
    return features.Tensor(shape=values.shape[1:], dtype=np.float32)


def _steps(episode: Demonstration) -> Iterator[dict[str, Any]]:
    last = len(episode.actions) - 1
    for i in range(last + 1):
        terminal = episode.terminal and i == last
        yield {
            "observation": {
                name: values[i] if _is_picture(values) else values[i].astype(np.float32) for name, values in episode.observations.items()
            },
            "action": episode.actions[i].astype(np.float32),
            "reward": np.float32(episode.rewards[i]),
            "discount": np.float32(0.0 if terminal else 1.0),
            "is_first": i == 0,
            "is_last": i == last,
            "is_terminal": terminal,
            "language_instruction": episode.instruction,
        }


def _check(spec: DatasetSpec, episode: Demonstration) -> None:
    """Raises ValueError where an episode is not what its spec says."""
    where = f"episode {episode.source!r} of {spec.name!r}"
    n = len(episode.actions)
    lengths = {"rewards": len(episode.rewards)} | {name: len(values) for name, values in episode.observations.items()}
    wrong = {name: length for name, length in lengths.items() if length != n}
    if n == 0 or wrong:
        raise ValueError(f"{where} must have as many rows of everything as actions (at least 1), got {n} actions and {wrong or lengths}.")
    columns = {"action": episode.actions, **{f"observation/{name}": values for name, values in episode.observations.items()}}
    missing = [key for key in (*spec.action_keys, *spec.proprio_keys, *spec.cameras.values()) if key not in columns]
    if missing:
        raise ValueError(f"{where} must have the features its spec names, got none for {missing} among {sorted(columns)}.")
    for key in spec.cameras.values():
        if not _is_picture(columns[key]):
            raise ValueError(f"{where} must have uint8 [n y x 3] for its camera {key!r}, got {columns[key].dtype} {columns[key].shape}.")
    action, proprio = join(spec, columns)
    for what, values, dimensions in (("action", action, spec.action), ("proprio", proprio, spec.proprio)):
        if values.shape[1] != len(dimensions):
            raise ValueError(f"{where} must have {len(dimensions)} {what} numbers, got {values.shape[1]}.")
    try:
        check_grippers(action, spec.action)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    floats = [episode.actions, *(values for values in episode.observations.values() if not _is_picture(values))]
    if not all(np.isfinite(values).all() for values in floats):
        raise ValueError(f"{where} must be finite, got NaN or infinity.")
