"""A writer of small RLDS folders that knows nothing of the reader: protobuf for the records, TFRecord framing by the book."""

import dataclasses
import json
import pathlib
import struct
import types
from collections.abc import Mapping, Sequence
from typing import Any

import google_crc32c
import numpy as np
import simplejpeg
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from ebt_jax.data.spec import DatasetSpec
from ebt_jax.specs import ActionDimension, Dimension

Episodes = Sequence[Mapping[str, Any]]

SPEC = DatasetSpec(
    name="toy",
    action_keys=("action",),
    action=(
        ActionDimension("episode", "eef_delta", "m"),
        ActionDimension("step", "eef_delta", "m"),
        ActionDimension("gripper", "gripper", "", 0.0, 1.0),
    ),
    proprio_keys=("observation/state",),
    proprio=(Dimension("episode", "m"), Dimension("step", "m")),
    cameras={"primary": "observation/image"},
    language_key="language_instruction",
    action_frame="base",
    control_rate_hz=10.0,
)
ARM = dataclasses.replace(
    SPEC,
    name="arm",
    action=(
        SPEC.action[0],
        ActionDimension("joint_0", "joint_delta", "rad"),
        ActionDimension("gripper", "gripper", "", 0.0, 1.0),
    ),
    proprio=(Dimension("episode", "m"), Dimension("joint_0", "rad")),
    cameras={},
    language_key="",
    control_rate_hz=50.0,
    action_frame="unknown",
)
"""Another robot: one number of the toy's, a joint that it lacks, no camera and no instructions."""

STEPS = {
    "action": {"tensor": {"shape": {"dimensions": ["3"]}, "dtype": "float32", "encoding": "none"}},
    "observation": {
        "featuresDict": {
            "features": {
                "state": {"tensor": {"shape": {"dimensions": ["2"]}, "dtype": "float64", "encoding": "none"}},
                "image": {"image": {"shape": {"dimensions": ["8", "8", "3"]}, "dtype": "uint8", "encodingFormat": "jpeg"}},
            }
        }
    },
    "language_instruction": {"text": {}},
    "is_last": {"tensor": {"shape": {}, "dtype": "bool", "encoding": "none"}},
}
LENGTHS = (5, 1, 7, 3, 9, 2, 6, 4)


def arm_moves(number: int) -> np.ndarray:
    """Four actions of the arm."""
    return np.stack([np.full(4, 20 + number), np.arange(4) + 5, np.arange(4) % 2], 1).astype(np.float32)


def arm_shards() -> list[list[dict[str, Any]]]:
    """One shard of three episodes of the arm, in the toy's features."""
    return [[{**make_episode(20 + number, 4), "action": arm_moves(number)} for number in range(3)]]


def make_episode(number: int, length: int) -> dict[str, Any]:
    """Every number in it says which episode and step it belongs to; images are grey of level 10 * step + 5."""
    steps = np.arange(length)
    return {
        "action": np.stack([np.full(length, number), steps, steps % 2], 1).astype(np.float32),
        "observation/state": np.stack([np.full(length, number), steps], 1).astype(np.float32),
        "observation/image": [simplejpeg.encode_jpeg(np.full((8, 8, 3), 10 * step + 5, np.uint8)) for step in range(length)],
        "language_instruction": [f"task {number % 3}".encode()] * length,
        "is_last": steps == length - 1,
    }


def serialize(episode: Mapping[str, Any]) -> bytes:
    """A tf.train.Example with the steps' lists laid out as TFDS does; the same bytes in every process, so the same hashes.

    "/key" is a feature beside the steps.
    """
    features = {}
    for key, values in episode.items():
        if isinstance(values, list):
            feature = tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=values))
        elif values.dtype.kind == "f":
            feature = tf_feature_pb2.Feature(float_list=tf_feature_pb2.FloatList(value=values.ravel()))
        else:
            feature = tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=values.ravel().astype(np.int64)))
        features[key[1:] if key.startswith("/") else f"steps/{key}"] = feature
    return tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=features)).SerializeToString(deterministic=True)


def write_tfrecord(path: pathlib.Path, records: Sequence[bytes]) -> None:
    def masked(data: bytes) -> bytes:
        crc = google_crc32c.value(data)
        return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    with path.open("wb") as file:
        for record in records:
            length = struct.pack("<Q", len(record))
            file.write(length + masked(length) + record + masked(record))


def write_array_record(path: pathlib.Path, records: Sequence[bytes]) -> None:
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def write_folder(
    root: pathlib.Path,
    name: str,
    steps: Mapping[str, Any],
    splits: Mapping[str, Sequence[Episodes]],
    spec: DatasetSpec | None = None,
    file_format: str = "tfrecord",
    version: str = "1.0.0",
    beside: Mapping[str, Any] = types.MappingProxyType({}),
) -> pathlib.Path:
    """`splits`: split -> shards -> episodes -> feature path -> values of all steps; `beside`: features beside the steps."""
    folder = root / name / version
    folder.mkdir(parents=True)
    sequence = {"sequence": {"feature": {"featuresDict": {"features": steps}}, "length": "-1"}}
    tree = {"featuresDict": {"features": {"steps": sequence, **beside}}}
    (folder / "features.json").write_text(json.dumps(tree))
    info = {"name": name, "version": version, "fileFormat": file_format, "splits": []}
    for split, shards in splits.items():
        info["splits"].append({"name": split, "shardLengths": [str(len(shard)) for shard in shards]})
        for i, shard in enumerate(shards):
            write = write_tfrecord if file_format == "tfrecord" else write_array_record
            write(folder / f"{name}-{split}.{file_format}-{i:05d}-of-{len(shards):05d}", [serialize(episode) for episode in shard])
    (folder / "dataset_info.json").write_text(json.dumps(info))
    if spec is not None:
        (folder / "ebt_spec.json").write_text(spec.to_json())
    return folder


def shards() -> list[list[dict[str, Any]]]:
    """Eight episodes in two files."""
    episodes = [make_episode(number, length) for number, length in enumerate(LENGTHS)]
    return [episodes[:5], episodes[5:]]
