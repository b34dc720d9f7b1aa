"""What a request may hold, and how each fault is named."""

import dataclasses
import math

import echo
import numpy as np
import pytest

from ebt_jax.images import resize
from ebt_jax.serving.schema import RequestError, Schema
from ebt_jax.specs import LanguageSpec
from ebt_jax.text import tokenize

SCHEMA = Schema(echo.SPECS, sample_steps=(2, 20), max_chunks=64)

NESTED: list = []
for _ in range(1000):
    NESTED = [NESTED]


def parse(**changes):
    return SCHEMA.parse({**echo.observation(1.0), **changes}, seed=0, episode=3, step=4)


def test_the_example_is_a_request():
    request = SCHEMA.parse(SCHEMA.example(), 0, 0, 0)
    assert request.kind == "act"
    assert request.observation.proprio.shape == (1, 2, 2)


def test_a_request_becomes_the_policys_observation():
    image = np.random.default_rng(0).integers(0, 256, (2, 40, 30, 3), np.uint8)
    request = parse(**{"images/primary": image, "timestep_mask": np.array([False, True])})
    np.testing.assert_array_equal(request.observation.images["primary"][0], resize(image, 16, 16))
    assert request.observation.image_masks["primary"].all()
    np.testing.assert_array_equal(request.observation.timestep_mask, [[False, True]])
    tokens, mask = tokenize("pick up the block", echo.SPECS.observation.language)
    np.testing.assert_array_equal(request.observation.language[0], tokens)
    np.testing.assert_array_equal(request.observation.language_mask[0], mask)
    assert (request.seed, request.episode, request.step, request.sample_steps, request.deadline_ms) == (0, 3, 4, 2, math.inf)


def test_a_camera_left_out_is_masked():
    message = echo.observation(1.0)
    del message["images/primary"]
    request = SCHEMA.parse(message, 0, 0, 0)
    assert not request.observation.image_masks["primary"].any()


def test_who_has_no_instruction_must_say_so():
    """Only who says "" has none; a policy that reads no text is asked for none."""
    message = echo.observation(1.0)
    del message["prompt"]
    with pytest.raises(RequestError, match="prompt must be the instruction, as the policy reads text .* got none"):
        SCHEMA.parse(message, 0, 0, 0)
    assert not SCHEMA.parse({**message, "prompt": ""}, 0, 0, 0).observation.language_mask.any()
    observation = dataclasses.replace(echo.SPECS.observation, language=LanguageSpec())
    mute = Schema(dataclasses.replace(echo.SPECS, observation=observation), sample_steps=(2,), max_chunks=64)
    assert mute.parse(message, 0, 0, 0).observation.language.shape == (1, 0)


def test_what_the_client_names_counts():
    request = parse(seed=7, episode=8, step=9, sample_steps=20, deadline_ms=50, id=11)
    assert (request.seed, request.episode, request.step, request.sample_steps, request.deadline_ms, request.id) == (7, 8, 9, 20, 50.0, 11)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proprio": np.zeros((1, 2), np.float32)}, r"proprio must have 2 axes, the first of 2 observation steps.*got float32 \[1, 2\]"),
        ({"proprio": np.zeros(2, np.float32)}, r"proprio must have 2 axes"),
        ({"proprio": np.zeros((2, 3), np.float32)}, r"proprio must be float \[2, 2\] \(x, y\), got float32 \[2, 3\]"),
        ({"proprio": np.array([[0, 0], [np.nan, 0]], np.float32)}, "proprio must be finite"),
        ({"proprio": np.full((2, 2), 1e300)}, "proprio must be finite"),
        ({"proprio": [1.0, 2.0]}, "proprio must be an array, got list"),
        ({"proprio": np.zeros((2, 2), bool)}, "proprio must be float"),
        ({"images/primary": np.zeros((2, 16, 16, 3), np.float32)}, r"images/primary must be uint8 \[2, height, width, 3\]"),
        ({"images/primary": np.zeros((2, 16, 16, 4), np.uint8)}, "images/primary must be uint8"),
        ({"images/primary": np.zeros((2, 0, 16, 3), np.uint8)}, "images/primary must be uint8"),
        ({"images/primary": np.zeros((2, 1, 4097, 3), np.uint8)}, "at most 4096 pixels"),
        ({"images/wrist": np.zeros((2, 16, 16, 3), np.uint8)}, "keys must be among .*got images/wrist"),
        ({"prompt": 3}, "prompt must be a string, got int"),
        ({"timestep_mask": np.array([True, False])}, "timestep_mask must be bool"),
        ({"timestep_mask": np.ones(2)}, "timestep_mask must be bool"),
        ({"timestep_mask": ["x" * 65_000, ""]}, "timestep_mask must be an array, got list"),
        ({"timestep_mask": [[True], [True, False]]}, "timestep_mask must be an array, got list"),
        ({"request": np.zeros(3)}, "request must be 'act' or 'energy', got array"),
        ({"request": NESTED}, "request must be 'act' or 'energy'"),
        ({"id": NESTED}, "id must be a whole number"),
        ({"deadline_ms": NESTED}, "deadline_ms must be a positive number"),
        ({"seed": -1}, "seed must be a whole number from 0 to 4294967295, got -1"),
        ({"step": 2**31}, "step must be a whole number"),
        ({"episode": True}, "episode must be a whole number"),
        ({"sample_steps": 3}, "sample_steps must be one of 2, 20, for which the server was started, got 3"),
        ({"sample_steps": 2.0}, "sample_steps must be one of 2, 20"),
        ({"deadline_ms": 0}, "deadline_ms must be a positive number"),
        ({"deadline_ms": math.nan}, "deadline_ms must be a positive number"),
        ({"request": "eval"}, "request must be 'act' or 'energy'"),
        ({"request": "energy"}, r"actions must be float \[m, 4, 2\]"),
        ({"request": "energy", "actions": np.zeros((3, 4, 3))}, r"actions must be float \[3, 4, 2\], got float64 \[3, 4, 3\]"),
        ({"request": "energy", "actions": np.zeros((2000, 4, 2))}, "with m from 1 to 64"),
    ],
)
def test_a_fault_is_named(changes, message):
    with pytest.raises(RequestError, match=message) as caught:
        parse(**changes)
    assert caught.value.code == "bad_request"


def test_a_refusal_says_whose_it_is():
    with pytest.raises(RequestError, match="proprio must") as caught:
        parse(id=7, proprio=np.zeros(3))
    assert caught.value.id == 7


def test_what_is_no_dict_of_names_is_refused():
    for message in (None, [], "x", {b"proprio": 1}):
        with pytest.raises(RequestError, match="dict with names"):
            SCHEMA.parse(message, 0, 0, 0)


def test_a_policy_without_energy_says_so():
    with pytest.raises(RequestError, match="has no energy"):
        Schema(echo.SPECS, (2,), max_chunks=0).parse({**echo.observation(1), "request": "energy"}, 0, 0, 0)
