"""Real BridgeData V2 records: every field as TensorFlow reads it, meanings as published, batches as promised."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import toy_rlds
from etils import epath

from ebt_jax.data import example, records
from ebt_jax.data.batches import decode
from ebt_jax.data.folder import find_folder, read_folder
from ebt_jax.data.index import open_index
from ebt_jax.data.loader import make_loader
from ebt_jax.data.mixture import open_mixture
from ebt_jax.data.oxe import ENTRIES
from ebt_jax.data.settings import DataSettings


@pytest.fixture(scope="module")
def bridge_dir(test_data):
    return str(test_data / "bridge")


@pytest.fixture
def bridge_settings(bridge_dir):
    return DataSettings(bridge_dir, "bridge_dataset", cameras=("primary", "secondary"), validation_folds=5)


@pytest.mark.slow
def test_every_field_is_what_tensorflow_reads(bridge_dir):
    tf, tfds = pytest.importorskip("tensorflow"), pytest.importorskip("tensorflow_datasets")
    folder = find_folder(bridge_dir, "bridge_dataset")
    images = [key.removeprefix("observation/") for key, feature in folder.steps.items() if feature.kind == "image"]
    files = {"steps": {"observation": {name: tfds.decode.SkipDecoding() for name in images}}}
    builder = tfds.builder_from_directory(folder.path)
    expected = builder.as_dataset("train", decoders=files, read_config=tfds.ReadConfig(interleave_cycle_length=1))
    compared = 0
    for (_, record), episode in zip(records.scan(folder.splits["train"][0], folder.file_format), tfds.as_numpy(expected), strict=True):
        steps = list(episode["steps"])
        stored = example.parse(record)
        for key, feature in folder.steps.items():
            wanted = [step["observation"][key.removeprefix("observation/")] if "/" in key else step[key] for step in steps]
            if feature.kind == "tensor":
                found = example.numbers(record, stored[f"steps/{key}"]).reshape(-1, *feature.shape)
                np.testing.assert_array_equal(found, wanted, err_msg=key)
            else:
                assert [record[at : at + size] for at, size in example.spans(record, stored[f"steps/{key}"])] == wanted
            if feature.kind == "image":
                exact = tf.io.decode_jpeg(wanted[0], dct_method="INTEGER_ACCURATE")
                np.testing.assert_array_equal(decode(wanted[0]), exact.numpy())
        compared += len(steps)
    assert compared == 250


def test_batches_hold_the_records_values(bridge_settings):
    assert open_mixture(bridge_settings).specs.observation.language.kind == "tokens"  # what a robot can be told, where there is a choice
    mixture = open_mixture(dataclasses.replace(bridge_settings, language="embedding"))
    assert (mixture.num_transitions, mixture.statistics.num_episodes) == (200, 20)
    batch = next(make_loader(mixture, "train", 32, seed=0))
    assert batch.observation.images["primary"].shape == (32, 2, 64, 64, 3)
    assert all(mask.all() for mask in batch.observation.image_masks.values())
    assert batch.observation.images["primary"].std() > 20
    np.testing.assert_allclose(np.linalg.norm(batch.observation.language, axis=-1), 1, atol=1e-5)
    assert batch.observation.language_mask.all()
    assert set(np.unique(batch.actions[..., 6])) <= {-1.0, 1.0}
    assert np.isfinite(batch.actions).all()


def test_folds_cover_the_sample_though_its_val_split_is_no_other(bridge_settings):
    held = [open_mixture(dataclasses.replace(bridge_settings, validation_fold=fold)).split("validation")[0] for fold in range(5)]
    assert [len(split) for split in held] == [50] * 5
    assert len({int(checksum) for split in held for checksum in split.episodes["checksum"]}) == 25
    with pytest.raises(ValueError, match="share no episode with its training split, got 25 in both"):
        open_mixture(dataclasses.replace(bridge_settings, validation_folds=0, validation_fraction=0.0)).split("validation")


def test_values_agree_with_the_published_statistics(bridge_dir, test_data):
    published = json.loads((test_data / "oxe" / "open_pi_zero_bridge_statistics.json").read_text())
    folder = find_folder(bridge_dir, "bridge_dataset")
    index = open_index(folder, "train", ENTRIES["bridge_dataset"])
    for key in ("action", "proprio"):
        values = index.columns[key]
        assert (values >= np.float32(published[key]["min"]) - 1e-3).all()
        assert (values <= np.float32(published[key]["max"]) + 1e-3).all()
        ratio = values.std(0) / np.asarray(published[key]["std"])
        assert ((ratio > 0.2) & (ratio < 3)).all(), ratio


def test_actions_are_metres_and_radians_along_the_axes_of_the_state(bridge_dir):
    index = open_index(find_folder(bridge_dir, "bridge_dataset"), "train", ENTRIES["bridge_dataset"])
    state = index.columns["proprio"].reshape(25, 10, 7)
    moved = np.diff(state[..., :6], axis=1).reshape(-1, 6)
    commanded = index.columns["action"].reshape(25, 10, 7)[:, :-1, :6].reshape(-1, 6)
    for axis in range(6):
        slope = (moved[:, axis] @ commanded[:, axis]) / (commanded[:, axis] @ commanded[:, axis])
        assert np.corrcoef(moved[:, axis], commanded[:, axis])[0, 1] > 0.7
        assert 0.6 < slope < 1.2


def test_the_gripper_s_sign_is_the_state_s(bridge_dir):
    index = open_index(find_folder(bridge_dir, "bridge_dataset"), "train", ENTRIES["bridge_dataset"])
    opening, command = index.columns["proprio"][:, 6], index.columns["action"][:, 6]
    assert opening[command == 1].mean() > opening[command == 0].mean() + 0.1


def test_the_edition_of_open_x_embodiment_reads_with_its_own_keys(make_folder, settings, test_data):
    """gs://gresearch/robotics/bridge: a dict for an action, a bool for the gripper, language inside the observation."""
    published = json.loads((test_data / "oxe" / "feature_specs.json").read_text())["bridge"]
    spec = ENTRIES["bridge"].spec
    for key in (*spec.proprio_keys, *spec.cameras.values(), spec.language_key, spec.embedding_key):
        assert f"`{key.removeprefix('observation/')}`" in published["Observation keys"]
    for key in spec.action_keys:
        assert f"`{key.removeprefix('action/')}`" in published["Action"]

    def tensor(dtype, *shape):
        return {"tensor": {"shape": {"dimensions": [str(size) for size in shape]}, "dtype": dtype, "encoding": "none"}}

    def nested(**features):
        return {"featuresDict": {"features": features}}

    steps = {
        "action": nested(
            world_vector=tensor("float32", 3),
            rotation_delta=tensor("float32", 3),
            open_gripper=tensor("bool"),
            terminate_episode=tensor("float32"),
        ),
        "observation": nested(
            image={"image": {"shape": {"dimensions": ["480", "640", "3"]}, "dtype": "uint8", "encodingFormat": "jpeg"}},
            state=tensor("float32", 7),
            natural_language_instruction={"text": {}},
            natural_language_embedding=tensor("float32", 512),
        ),
    }
    rng = np.random.default_rng(0)
    move, turn, opened = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), np.array([True, True, False, True])
    state, vectors = rng.normal(size=(4, 7)).astype(np.float32), rng.normal(size=(4, 512)).astype(np.float32)
    toy = toy_rlds.make_episode(0, 4)
    episode = {
        "action/world_vector": move,
        "action/rotation_delta": turn,
        "action/open_gripper": opened,
        "action/terminate_episode": np.zeros(4),
        "observation/image": toy["observation/image"],
        "observation/state": state,
        "observation/natural_language_instruction": [b"put carrot on plate"] * 4,
        "observation/natural_language_embedding": vectors,
    }
    path = make_folder("bridge", steps, {"train": [[episode]]}, version="0.1.0")
    index = open_index(read_folder(epath.Path(path)), "train", ENTRIES["bridge"])
    np.testing.assert_array_equal(index.columns["action"], np.float32(np.column_stack([move, turn, opened])))
    np.testing.assert_array_equal(index.columns["proprio"], state)
    mixture = open_mixture(settings(mixture="bridge", language="embedding"))
    batch = next(itertools.islice(make_loader(mixture, "train", 4, seed=0), 1))
    assert batch.observation.language.shape == (4, 1, 512)
    assert batch.observation.image_masks["primary"].all()
