"""Every encoding that Open X-Embodiment has, written by tensorflow-datasets itself, read by us."""

import dataclasses
import json

import numpy as np
import pytest
import toy_rlds
from etils import epath

from ebt_jax.data.batches import gather
from ebt_jax.data.folder import read_folder
from ebt_jax.data.index import open_index
from ebt_jax.data.mixture import open_mixture
from ebt_jax.data.spec import DatasetSpec
from ebt_jax.data.standardize import Entry
from ebt_jax.specs import ActionDimension, CameraSpec, Dimension

SPEC = DatasetSpec(
    name="every",
    action_keys=("action/world", "action/open", "action/label"),
    action=tuple(ActionDimension(name, "eef_delta", "m") for name in ("x", "y", "open", "label")),
    proprio_keys=("observation/clip/pose", "observation/packed", "observation/count", "observation/raw"),
    proprio=tuple(Dimension(f"p{i}", "") for i in range(2 + 4 + 1 + 3)),
    cameras={"primary": "observation/png", "wrist": "observation/plain"},
    language_key="observation/words",
    embedding_key="observation/vector",
    embedding_size=5,
)


@pytest.mark.slow
def test_every_encoding(tmp_path, settings):
    tfds = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("tensorflow")
    make = tfds.features
    observation = {
        "clip/pose": make.Tensor(shape=(2,), dtype=np.float64),
        "packed": make.Tensor(shape=(2, 2), dtype=np.float32, encoding="zlib"),
        "raw": make.Tensor(shape=(3,), dtype=np.int32, encoding="bytes"),
        "count": make.Scalar(dtype=np.int64),
        "png": make.Image(shape=(6, 7, 3), encoding_format="png"),
        "plain": make.Image(shape=(None, None, 3)),
        "words": make.Text(),
        "vector": make.Tensor(shape=(5,), dtype=np.float32),
        "boxes": make.Sequence(make.Scalar(dtype=np.float32)),
    }
    action = {"world": make.Tensor(shape=(2,), dtype=np.float64), "open": make.Scalar(np.bool_), "label": make.ClassLabel(num_classes=3)}
    features = make.FeaturesDict(
        {
            "steps": make.Dataset({"observation": observation, "action": action, "is_last": make.Scalar(np.bool_)}),
            "episode_metadata": {"file_path": make.Text()},
        }
    )
    rng = np.random.default_rng(0)
    steps = [
        {
            "observation": {
                "clip/pose": rng.normal(size=2),
                "packed": rng.normal(size=(2, 2)).astype(np.float32),
                "raw": rng.integers(-9, 9, 3, dtype=np.int32),
                "count": -(10**12) * t,
                "png": rng.integers(0, 256, (6, 7, 3), np.uint8),
                "plain": rng.integers(0, 256, (6, 7, 3), np.uint8),
                "words": f"Schritt {t} ä",
                "vector": rng.normal(size=5).astype(np.float32),
                "boxes": [1.0] * t,
            },
            "action": {"world": rng.normal(size=2), "open": t % 2 == 0, "label": t % 3},
            "is_last": t == 4,
        }
        for t in range(5)
    ]
    record = features.serialize_example({"steps": steps, "episode_metadata": {"file_path": "somewhere"}})
    path = tmp_path / "data" / "every" / "1.0.0"
    path.mkdir(parents=True)
    features.save_config(path)
    toy_rlds.write_tfrecord(path / "every-train.tfrecord-00000-of-00001", [record])
    info = {"name": "every", "version": "1.0.0", "splits": [{"name": "train", "shardLengths": ["1"]}]}
    (path / "dataset_info.json").write_text(json.dumps(info))
    (path / "ebt_spec.json").write_text(SPEC.to_json())

    folder = read_folder(epath.Path(path))
    assert folder.steps["observation/boxes"].ragged
    index = open_index(folder, "train", Entry(SPEC))
    seen, done = [step["observation"] for step in steps], [step["action"] for step in steps]
    np.testing.assert_array_equal(index.columns["action"], np.float32([[*d["world"], d["open"], d["label"]] for d in done]))
    expected = [[*s["clip/pose"], *s["packed"].ravel(), s["count"], *s["raw"]] for s in seen]
    np.testing.assert_array_equal(index.columns["proprio"], np.float32(expected))
    assert [index.texts[i] for i in index.columns["text"]] == [s["words"] for s in seen]

    mixture = open_mixture(settings(mixture="every", cameras=("primary", "wrist"), observation_horizon=1, language="embedding"))
    cameras = (CameraSpec("primary", 6, 7), CameraSpec("wrist", 6, 7))  # as stored, so that nothing is resized
    specs = dataclasses.replace(mixture.specs, observation=dataclasses.replace(mixture.specs.observation, cameras=cameras))
    batch = gather(mixture.split("train")[0], np.arange(5), specs)
    np.testing.assert_array_equal(batch.observation.images["primary"][:, 0], [s["png"] for s in seen])
    np.testing.assert_array_equal(batch.observation.images["wrist"][:, 0], [s["plain"] for s in seen])
    np.testing.assert_array_equal(batch.observation.language[:, 0], [s["vector"] for s in seen])
