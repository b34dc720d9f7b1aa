"""Shards to time a loader on: episodes of 40 steps with 256 x 256 JPEG frames, laid out as Open X-Embodiment lays them out.

Frames are real BridgeData V2 ones, enlarged, with a camera's noise, where $EBT_JAX_TEST_DATA has them; else smooth random scenes. A
frame comes to about 25 kB, as in Bridge's own 256 x 256 edition.
"""

import json
import os
import pathlib
import struct
import tempfile
from collections.abc import Iterator

import numpy as np
import simplejpeg
from tensorflow_datasets.proto import tf_example_pb2

from ebt_jax.data.mixture import episodes, open_mixture
from ebt_jax.data.records import masked_checksum
from ebt_jax.data.settings import DataSettings
from ebt_jax.data.spec import DatasetSpec
from ebt_jax.images import resize
from ebt_jax.specs import ActionDimension, Dimension

SIZE, STEPS, EPISODES, SHARDS = 256, 40, 240, 8
NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")


def write(data_dir: pathlib.Path, datasets: int) -> str:
    """Writes dataset_00, and as many more that are links to its shards; returns what the frames are."""
    scenes, what = _scenes()
    rng = np.random.default_rng(0)
    first = data_dir / "dataset_00" / "1.0.0"
    first.mkdir(parents=True)
    for shard in range(SHARDS):
        with (first / _file("dataset_00", shard)).open("wb") as file:
            for _ in range(EPISODES // SHARDS):
                record = _episode(scenes, rng)
                length = struct.pack("<Q", len(record))
                for part in (length, struct.pack("<I", masked_checksum(length)), record, struct.pack("<I", masked_checksum(record))):
                    file.write(part)
    for number in range(datasets):
        name = f"dataset_{number:02d}"
        folder = data_dir / name / "1.0.0"
        folder.mkdir(parents=True, exist_ok=True)
        for shard in range(SHARDS if number else 0):
            (folder / _file(name, shard)).symlink_to(first / _file("dataset_00", shard))
        _describe(folder, name)
    return what


def _file(name: str, shard: int) -> str:
    return f"{name}-train.tfrecord-{shard:05d}-of-{SHARDS:05d}"


def _scenes() -> tuple[np.ndarray, str]:
    """Frames to make episodes of, [n 256 256 3]."""
    root = pathlib.Path(os.environ.get("EBT_JAX_TEST_DATA", "")) / "bridge"
    if (root / "bridge_dataset").is_dir():
        with tempfile.TemporaryDirectory() as cache:
            settings = DataSettings(str(root), "bridge_dataset", 1, 1, SIZE, ("primary",), "none", validation_fraction=0.0, cache_dir=cache)
            frames = [episode.observation.images["primary"][:, 0] for episode in episodes(open_mixture(settings), "train")]
        return np.concatenate(frames), "BridgeData V2 frames of 64 x 64, enlarged, with noise"
    coarse = np.random.default_rng(0).integers(0, 256, (250, 24, 24, 3), dtype=np.uint8)
    return resize(coarse, SIZE, SIZE), "smooth random scenes with noise"


def _episode(scenes: np.ndarray, rng: np.random.Generator) -> bytes:
    start = rng.integers(len(scenes))
    noisy = scenes[(start + np.arange(STEPS)) % len(scenes)] + rng.normal(0, 2, (STEPS, SIZE, SIZE, 3)).astype(np.float32)
    frames = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["steps/observation/image"].bytes_list.value.extend(simplejpeg.encode_jpeg(frame, quality=95) for frame in frames)
    feature["steps/observation/state"].float_list.value.extend(rng.normal(size=STEPS * len(NAMES)))
    feature["steps/action"].float_list.value.extend(rng.uniform(0, 1, STEPS * len(NAMES)))
    feature["steps/language_instruction"].bytes_list.value.extend([b"put the spoon on the towel"] * STEPS)
    return example.SerializeToString()


def _describe(folder: pathlib.Path, name: str) -> None:
    def tensor(size: int) -> dict:
        return {"tensor": {"shape": {"dimensions": [str(size)]}, "dtype": "float32", "encoding": "none"}}

    picture = {"image": {"shape": {"dimensions": [str(SIZE), str(SIZE), "3"]}, "dtype": "uint8", "encodingFormat": "jpeg"}}
    observation = {"featuresDict": {"features": {"image": picture, "state": tensor(len(NAMES))}}}
    steps = {"observation": observation, "action": tensor(len(NAMES)), "language_instruction": {"text": {}}}
    sequence = {"sequence": {"feature": {"featuresDict": {"features": steps}}, "length": "-1"}}
    (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": {"steps": sequence}}}))
    split = {"name": "train", "shardLengths": [str(EPISODES // SHARDS)] * SHARDS}
    info = {"name": name, "version": "1.0.0", "fileFormat": "tfrecord", "splits": [split]}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    kinds = [ActionDimension(axis, "eef_delta", "m" if axis in "xyz" else "rad") for axis in NAMES[:6]]
    spec = DatasetSpec(
        name=name,
        action_keys=("action",),
        action=(*kinds, ActionDimension("gripper", "gripper", "", 0.0, 1.0)),
        proprio_keys=("observation/state",),
        proprio=tuple(Dimension(axis, "") for axis in NAMES),
        cameras={"primary": "observation/image"},
        language_key="language_instruction",
        action_frame="base",
        control_rate_hz=5.0,
    )
    (folder / "ebt_spec.json").write_text(spec.to_json())


def files(data_dir: str, name: str) -> Iterator[str]:
    """The shards of a dataset."""
    return (str(pathlib.Path(data_dir) / name / "1.0.0" / _file(name, shard)) for shard in range(SHARDS))
