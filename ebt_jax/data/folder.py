"""A TFDS folder as it lies on disk: which features a step has, how they are encoded, which files hold which split.

data_dir/bridge_dataset/1.0.0/
  features.json        the tree of features; every step of an episode has those under "steps"
  dataset_info.json    splits, shards, file format
  ebt_spec.json        ours, optional: which feature is what
  bridge_dataset-train.tfrecord-00000-of-00001 ...

A dataset is called what its directory is called, and has the version that the directory has: published ones were renamed after they
were written. `droid/1.0.1` holds `droid_101-train.tfrecord-...` of version 0.0.1.
"""

import dataclasses
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from etils import epath

from ebt_jax.data import remote

FORMATS = ("tfrecord", "array_record")
_VERSION = re.compile(r"\d+\.\d+\.\d+")


@dataclasses.dataclass(frozen=True)
class Feature:
    """One leaf of features.json.

    Attributes:
      kind: how it is stored: "tensor", "image" (a JPEG or PNG file a step) or "text".
      shape: of one step; None where the size varies.
      dtype: as features.json says ("float64" is stored as float32 all the same).
      encoding: of a tensor "none", "bytes" or "zlib"; of an image "jpeg", "png" or "" where it is not stated.
      ragged: a list inside a step, whose length varies: such features cannot be used.
    """

    kind: Literal["tensor", "image", "text"]
    shape: tuple[int | None, ...] = ()
    dtype: str = "string"
    encoding: str = "none"
    ragged: bool = False

    @property
    def size(self) -> int:
        """Numbers a step; 0 where the shape varies."""
        return math.prod(size or 0 for size in self.shape)


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of a split, with the number of episodes that dataset_info.json promises."""

    path: epath.Path
    num_records: int


@dataclasses.dataclass(frozen=True)
class Folder:
    """One version of one dataset.

    Attributes:
      name, version: of its directories, or as it was asked for; as it was written where the directories do not say.
      stem: its name as it was written: its files begin with it, and which episodes are held out follows it wherever they are copied.
      steps: path inside a step -> feature, paths as in the records: "observation/image".
      episode: likewise, features beside the steps: "episode_metadata/file_path".
      splits: split name -> its files, in order.
      file_format: one of `FORMATS`.
    """

    path: epath.Path
    name: str
    stem: str
    version: str
    steps: Mapping[str, Feature]
    splits: Mapping[str, tuple[Shard, ...]]
    file_format: str
    episode: Mapping[str, Feature] = dataclasses.field(default_factory=dict)

    def num_records(self, split: str) -> int:
        """Episodes that dataset_info.json promises; 0 where there is no such split."""
        return sum(shard.num_records for shard in self.splits.get(split, ()))


def find_folder(data_dir: str, name: str, version: str = "") -> Folder:
    """Dataset `name` under `data_dir` (local, or gs:// where the machine can read it): `version`, or the newest where that is not there.

    `data_dir` may also be the dataset's own folder, or one version of it; then `name` may also be its stem. Raises FileNotFoundError
    saying where it looked.
    """
    root = epath.Path(data_dir).expanduser()
    if versions := _versions(root / name):
        return read_folder(_choose(versions, version))
    for versions in ([root] if remote.exists(root / "features.json") else [], _versions(root)):
        if versions and name in ((folder := read_folder(_choose(versions, version))).name, folder.stem):
            return dataclasses.replace(folder, name=name)
    present = sorted(folder.name for folder in remote.folders(root))
    raise FileNotFoundError(
        f"dataset {name!r} must lie at {root / name}/VERSION/features.json, got "
        + (f"a folder with {present or 'nothing in it'}. " if remote.exists(root) else "no such folder. ")
        + "Point data_dir at the folder that holds your RLDS datasets (a local path, or gs://...), one folder a dataset."
    )


def _versions(path: epath.Path) -> list[epath.Path]:
    found = [folder for folder in remote.folders(path) if _VERSION.fullmatch(folder.name) and remote.exists(folder / "features.json")]
    return sorted(found, key=lambda p: [int(part) for part in p.name.split(".")])


def _choose(versions: list[epath.Path], version: str) -> epath.Path:
    return next((path for path in versions if path.name == version), versions[-1])


def read_folder(path: epath.Path) -> Folder:
    """Parses features.json and dataset_info.json. Raises FileNotFoundError or ValueError naming the file and what is wrong in it."""
    tree, info = _read_json(path / "features.json"), _read_json(path / "dataset_info.json")
    try:
        features = dict(_leaves(tree, "", 0))
        stem, version = info["name"], info["version"]
        file_format = info.get("fileFormat", "tfrecord")
        splits = {split["name"]: _shards(path, stem, file_format, split) for split in info["splits"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} must hold features.json and dataset_info.json as TFDS writes them, got a fault at {error!r}.") from error
    steps = {key.removeprefix("steps/"): feature for key, feature in features.items() if key.startswith("steps/")}
    if not steps:
        raise ValueError(f"{path}/features.json must describe episodes with a 'steps' feature (RLDS), got {sorted(features)}.")
    if file_format not in FORMATS:
        raise ValueError(f"file format of {path} must be one of {FORMATS}, got {file_format!r}.")
    episode = {key: feature for key, feature in features.items() if not key.startswith("steps/")}
    place = path if remote.is_remote(os.fspath(path)) else path.absolute()
    name, version = (place.parent.name, place.name) if _VERSION.fullmatch(place.name) else (stem, version)
    return Folder(path, name, stem, version, steps, splits, file_format, episode)


def _read_json(path: epath.Path) -> Any:
    try:
        return json.loads(remote.read_text(path))
    except FileNotFoundError:
        raise FileNotFoundError(f"an RLDS folder must hold {path.name}, got none at {path}. Is the copy complete?") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} must be JSON, got a fault at {error}. Is the copy complete?") from error


def _leaves(node: Mapping[str, Any], path: str, depth: int) -> Iterator[tuple[str, Feature]]:
    """Every leaf under `node` with its path in the records; `depth` counts the lists around it (1 for an ordinary step)."""
    if "featuresDict" in node:
        for key, child in node["featuresDict"]["features"].items():
            yield from _leaves(child, f"{path}/{key}" if path else key, depth)
    elif "sequence" in node:
        yield from _leaves(node["sequence"]["feature"], path, depth + 1)
    elif "tensor" in node:
        tensor = node["tensor"]
        kind = "text" if tensor["dtype"] == "string" else "tensor"
        yield path, Feature(kind, _shape(tensor), tensor["dtype"], tensor.get("encoding", "none"), depth > 1)
    elif "image" in node:
        image = node["image"]
        yield path, Feature("image", _shape(image), image.get("dtype", "uint8"), image.get("encodingFormat", ""), depth > 1)
    elif "text" in node:
        yield path, Feature("text", ragged=depth > 1)
    elif "classLabel" in node:
        yield path, Feature("tensor", (), "int64", "none", depth > 1)


def _shape(node: Mapping[str, Any]) -> tuple[int | None, ...]:
    sizes = (int(size) for size in node.get("shape", {}).get("dimensions", ()))
    return tuple(None if size < 0 else size for size in sizes)


def _shards(path: epath.Path, stem: str, file_format: str, split: Mapping[str, Any]) -> tuple[Shard, ...]:
    lengths = [int(length) for length in split["shardLengths"]]
    template = split.get("filepathTemplate", "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}")
    for key, value in {"{DATASET}": stem, "{SPLIT}": split["name"], "{FILEFORMAT}": file_format}.items():
        template = template.replace(key, value)
    names = (template.replace("{SHARD_X_OF_Y}", f"{i:05d}-of-{len(lengths):05d}") for i in range(len(lengths)))
    return tuple(Shard(path / name, length) for name, length in zip(names, lengths, strict=True))
