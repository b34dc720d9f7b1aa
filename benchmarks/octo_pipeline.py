"""The same windows by tf.data, put together as Octo puts its training pipeline together.

    shards --interleave--> whole episodes, frames still encoded --> normalise --> windows of history 2 and chunk 16
      --flatten--> sample from datasets --shuffle buffer--> decode and resize to 224 --> batch --> prefetch

After octo's data/dataset.py (make_interleaved_dataset), traj_transforms.py and obs_transforms.py, and dlimp, written anew. Kinder to
tf.data than they are: records are parsed directly instead of through tensorflow-datasets, no pad masks are computed, and statistics
are taken as given.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from shards import NAMES, SIZE, files

HISTORY, CHUNK, IMAGE_SIZE = 2, 16, 224


def batches(data_dir: str, names: list[str], batch_size: int, shuffle_buffer: int, method: str) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches; `method` of resizing is "lanczos3" (dlimp's) or "bilinear" (ours), both antialiased."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import tensorflow as tf

    auto, size = tf.data.AUTOTUNE, len(NAMES)
    features = {
        "steps/observation/image": tf.io.RaggedFeature(tf.string),
        "steps/observation/state": tf.io.RaggedFeature(tf.float32),
        "steps/action": tf.io.RaggedFeature(tf.float32),
        "steps/language_instruction": tf.io.RaggedFeature(tf.string),
    }

    def parse(record: Any) -> dict[str, Any]:
        found = tf.io.parse_single_example(record, features)
        action, proprio = (tf.reshape(found[key], [-1, size]) for key in ("steps/action", "steps/observation/state"))
        return {
            "image": found["steps/observation/image"],
            "proprio": (proprio - 0.0) / 1.0,
            "action": (action - 0.5) / 0.29,
            "language": found["steps/language_instruction"],
        }

    def window(episode: dict[str, Any]) -> dict[str, Any]:
        length = tf.shape(episode["action"])[0]
        history = tf.range(length)[:, None] + tf.range(1 - HISTORY, 1)
        chunk = tf.range(length)[:, None] + tf.range(CHUNK)
        seen, done = tf.maximum(history, 0), tf.minimum(chunk, length - 1)
        return {
            "image": tf.gather(episode["image"], seen),
            "proprio": tf.gather(episode["proprio"], seen),
            "action": tf.gather(episode["action"], done),
            "language": episode["language"],
            "timestep_mask": history >= 0,
            "action_mask": chunk < length,
        }

    def frame(data: Any) -> Any:
        picture = tf.ensure_shape(tf.io.decode_image(data, expand_animations=False, dtype=tf.uint8), [SIZE, SIZE, 3])
        resized = tf.image.resize(picture, [IMAGE_SIZE, IMAGE_SIZE], method=method, antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)

    def decoded(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "image": tf.stack([frame(row["image"][i]) for i in range(HISTORY)])}

    def dataset(name: str) -> Any:
        shards = tf.data.Dataset.from_tensor_slices(list(files(data_dir, name))).shuffle(64)
        records = shards.interleave(tf.data.TFRecordDataset, num_parallel_calls=auto, deterministic=False)
        windows = records.repeat().map(parse, auto).map(window, auto)
        return windows.interleave(tf.data.Dataset.from_tensor_slices, num_parallel_calls=auto, deterministic=False)

    parts = [dataset(name) for name in names]
    mixed = tf.data.Dataset.sample_from_datasets(parts, [1 / len(parts)] * len(parts)) if len(parts) > 1 else parts[0]
    options = tf.data.Options()
    options.deterministic = False
    options.autotune.enabled = True
    options.autotune.ram_budget = 2**30  # dlimp's with_ram_budget(1)
    options.experimental_optimization.apply_default_optimizations = True
    options.experimental_optimization.map_fusion = True
    rows = mixed.shuffle(shuffle_buffer).map(decoded, auto)
    return rows.batch(batch_size, drop_remainder=True).with_options(options).prefetch(auto).as_numpy_iterator()
