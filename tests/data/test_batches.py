"""A batch is the steps it says it is: actions, states, frames, words."""

import dataclasses
import io

import chex
import jax
import numpy as np
import pytest
import simplejpeg
import toy_rlds
from PIL import Image
from quadratic import quadratic_policy

from ebt_jax.data import batches, records
from ebt_jax.data.batches import decode, gather
from ebt_jax.data.mixture import open_mixture
from ebt_jax.images import resize
from ebt_jax.serving.schema import Schema
from ebt_jax.text import tokenize


def _open(settings, **changes):
    mixture = open_mixture(settings(**changes))
    return mixture, mixture.split("train")[0]


def test_every_window_shows_and_does_its_own_steps(toy, settings):
    mixture, split = _open(settings, observation_horizon=3, action_horizon=4)
    batch = gather(split, np.arange(len(split)), mixture.specs)
    row = 0
    for number, length in enumerate(toy_rlds.LENGTHS):
        for step in range(length):
            seen = np.clip([step - 2, step - 1, step], 0, None)
            done = np.clip(np.arange(step, step + 4), None, length - 1)
            assert batch.observation.proprio[row].tolist() == [[number, s] for s in seen]
            assert batch.observation.timestep_mask[row].tolist() == [step >= 2, step >= 1, True]
            assert batch.actions[row].tolist() == [[number, s, s % 2] for s in done]
            assert batch.action_mask[row].tolist() == [[step + i < length] * 3 for i in range(4)]
            grey = batch.observation.images["primary"][row].mean(axis=(1, 2, 3))
            np.testing.assert_allclose(grey, 10 * seen + 5, atol=1.5)
            assert batch.observation.image_masks["primary"][row].all()
            ids, mask = tokenize(f"task {number % 3}", mixture.specs.observation.language)
            np.testing.assert_array_equal(batch.observation.language[row], ids)
            np.testing.assert_array_equal(batch.observation.language_mask[row], mask)
            row += 1
    assert row == len(split)


def test_pixels_are_those_that_a_policy_makes_of_the_same_frames(toy, settings):
    mixture, split = _open(settings, image_size=5)
    batch = gather(split, np.arange(len(split)), mixture.specs)
    episodes = [toy_rlds.make_episode(number, length) for number, length in enumerate(toy_rlds.LENGTHS)]
    frames = np.stack([decode(file) for episode in episodes for file in episode["observation/image"]])
    np.testing.assert_array_equal(batch.observation.images["primary"][:, -1], resize(frames, 5, 5))


def test_frames_are_resized_and_absent_cameras_masked(make_folder, settings):
    episode = {**toy_rlds.make_episode(0, 3), "observation/wrist": [simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))] * 3}
    steps = {**toy_rlds.STEPS}
    steps["observation"] = {
        "featuresDict": {"features": {**toy_rlds.STEPS["observation"]["featuresDict"]["features"], "wrist": {"image": {}}}}
    }
    spec = dataclasses.replace(toy_rlds.SPEC, cameras={"primary": "observation/image", "wrist": "observation/wrist"})
    make_folder("toy", steps, {"train": [[episode]]}, spec)
    mixture, split = _open(settings, cameras=("wrist", "primary"), image_size=5)
    batch = gather(split, np.array([2]), mixture.specs)
    assert batch.observation.images["primary"].shape == (1, 2, 5, 5, 3)
    assert not batch.observation.image_masks["wrist"].any()  # black is how datasets say that a camera was not there
    assert batch.observation.image_masks["primary"].all()
    assert list(batch.observation.images) == ["wrist", "primary"]


def test_a_robot_is_masked_as_training_was(make_folder, settings):
    """What a client sends of the same frames, a goal at every step and black where a camera was not there, becomes the same batch."""
    episode = toy_rlds.make_episode(0, 6)
    for step in (1, 5):
        episode["observation/image"][step] = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))
    make_folder("toy", toy_rlds.STEPS, {"train": [[episode]]}, toy_rlds.SPEC)
    mixture, split = _open(settings, cameras=("primary", "goal_primary"), observation_horizon=2)
    trained = gather(split, np.arange(6), mixture.specs).observation
    for camera in ("primary", "goal_primary"):
        assert set(trained.image_masks[camera][:, -1].tolist()) == {True, False}
    policy = dataclasses.replace(quadratic_policy(), specs=mixture.specs)
    schema = Schema(mixture.specs, (2,), max_chunks=0)
    for row in range(6):
        goal = np.repeat(trained.images["goal_primary"][row, -1:], 2, axis=0)
        sent = {"images/primary": trained.images["primary"][row], "images/goal_primary": goal, "proprio": trained.proprio[row]}
        request = schema.parse({**schema.example(), **sent}, 0, 0, 0).observation
        before = jax.tree.map(np.copy, request)
        served = policy.prepare(request)
        chex.assert_trees_all_equal(request, before)
        for name in ("images", "image_masks"):
            wanted = jax.tree.map(lambda values, row=row: values[row : row + 1], getattr(trained, name))
            chex.assert_trees_all_equal(getattr(served, name), wanted)


@pytest.mark.parametrize("encode", [simplejpeg.encode_jpeg, lambda image: _png(image, "RGB"), lambda image: _png(image, "RGBA")])
def test_decodes_jpeg_and_png(encode):
    image = np.full((6, 9, 3), (200, 100, 50), np.uint8)
    np.testing.assert_allclose(decode(encode(image)).astype(int), image, atol=3)
    assert decode(encode(image)).shape == (6, 9, 3)


def _png(image, mode):
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, "PNG")
    return file.getvalue()


WHOLE = _png(np.full((6, 9, 3), 100, np.uint8), "RGB")
DAMAGED = WHOLE[:36] + b"\0" + WHOLE[37:]  # the length of the pixels' chunk


@pytest.mark.parametrize("data", [WHOLE[:45], DAMAGED], ids=["truncated", "header"])
def test_a_damaged_png_is_a_value_error(data):
    with pytest.raises(ValueError, match=rf"a PNG must be readable, got {len(data)} bytes"):
        decode(data)


def test_a_png_of_too_many_pixels_is_a_value_error(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(ValueError, match="a PNG must be readable, got .* exceeds limit"):
        decode(WHOLE)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\xff\xd8 cut", b"\x89PNG cut", DAMAGED])
def test_an_unreadable_image_names_its_file(make_folder, settings, data):
    episode = toy_rlds.make_episode(0, 3)
    episode["observation/image"][1] = data
    make_folder("toy", toy_rlds.STEPS, {"train": [[episode]]}, toy_rlds.SPEC)
    mixture, split = _open(settings, observation_horizon=1)
    gather(split, np.array([0]), mixture.specs)
    with pytest.raises(records.CorruptRecordError, match=r"toy-train\.tfrecord.*record at 12 holds an image that cannot be read"):
        gather(split, np.array([1]), mixture.specs)


def _embedded(make_folder, texts):
    vectors = np.random.default_rng(0).normal(size=(len(texts), 6)).astype(np.float32)
    node = {"tensor": {"shape": {"dimensions": ["6"]}, "dtype": "float32", "encoding": "none"}}
    episode = {**toy_rlds.make_episode(0, len(texts)), "embedding": vectors, "language_instruction": texts}
    spec = dataclasses.replace(toy_rlds.SPEC, embedding_key="embedding", embedding_size=6)
    make_folder("toy", {**toy_rlds.STEPS, "embedding": node}, {"train": [[episode]]}, spec)
    return vectors


def test_embeddings_are_those_of_the_newest_step_and_an_empty_instruction_is_masked(make_folder, settings):
    vectors = _embedded(make_folder, [b"push", b"push", b"  "])
    mixture, split = _open(settings, language="embedding")
    batch = gather(split, np.arange(3), mixture.specs)
    np.testing.assert_array_equal(batch.observation.language[:, 0], vectors)
    assert batch.observation.language_mask[:, 0].tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("language", "kind", "shape"),
    [("none", "none", (3, 0)), ("tokens", "tokens", (3, 16)), ("embedding", "embedding", (3, 1, 6)), ("auto", "tokens", (3, 16))],
)
def test_language_can_be_chosen(make_folder, settings, language, kind, shape):
    _embedded(make_folder, [b"push"] * 3)
    for combine in ("equal", "union"):
        mixture, split = _open(settings, language=language, combine=combine)
        assert gather(split, np.arange(3), mixture.specs).observation.language.shape == shape
        assert mixture.specs.observation.language.kind == kind


def test_windows_of_one_episode_share_a_visit_and_a_frame_is_decoded_once(toy, settings, monkeypatch):
    mixture = open_mixture(settings())
    split = mixture.main.train
    apart = [gather(split, np.array([number]), mixture.specs) for number in (30, 2, 3, 31, 2)]
    decoded, visited = [], []
    decode, read_many = batches.decode, records.read_many
    monkeypatch.setattr(batches, "decode", lambda data: decoded.append(data) or decode(data))
    monkeypatch.setattr(records, "read_many", lambda kind, requests: visited.extend(requests) or read_many(kind, requests))
    together = gather(split, np.array([30, 2, 3, 31, 2]), mixture.specs)
    chex.assert_trees_all_equal(together, jax.tree.map(lambda *leaves: np.concatenate(leaves), *apart))
    assert len(visited) == 2
    assert len(decoded) == 3 + 3  # steps 1, 2, 3 of one episode and three of another
