"""A trained policy: units, masks, limits, and answers that do not depend on the company a row keeps."""

import dataclasses
import hashlib
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from untrained import SEEING

import ebt_jax
from ebt_jax.checkpoint import DIGESTS, CheckpointError
from ebt_jax.data.mixture import episodes, open_mixture
from ebt_jax.data.settings import DataSettings, bundled_sample_dir
from ebt_jax.normalize import normalize
from ebt_jax.observation import check_observation
from ebt_jax.policy import empty_batch
from ebt_jax.specs import Specs


@pytest.fixture(scope="module")
def policy(tiny_run):
    return ebt_jax.load(tiny_run)


@pytest.fixture(scope="module")
def demonstration():
    settings = DataSettings(bundled_sample_dir(), "metaworld_pick_place_v3", observation_horizon=2, action_horizon=4)
    return next(episodes(open_mixture(settings), "train"))


def rows(observation, count):
    return jax.tree.map(lambda x: x[np.arange(count) % len(x)], observation)


def keys(policy, count):
    return policy.sample_keys(0, np.arange(count), np.zeros(count, np.int64))


def test_rows_are_the_same_alone_in_a_batch_of_64_and_padded(policy, demonstration):
    """1e-5 in normalised units at any batch size; bit for bit at one batch size whatever the other rows hold."""
    many = rows(demonstration.observation, 64)
    together = policy.sample_actions(many, keys(policy, 64)).actions
    scale = policy.action_normalizer.scale[None]
    for row in (0, 31, 63):
        one = jax.tree.map(lambda x, row=row: x[row : row + 1], many)
        alone = policy.sample_actions(one, keys(policy, 64)[row : row + 1]).actions[0]
        np.testing.assert_allclose(alone / scale, together[row] / scale, atol=1e-5)
    spoiled = many._replace(proprio=many.proprio.copy())
    spoiled.proprio[20:] = 1e3
    np.testing.assert_array_equal(policy.sample_actions(spoiled, keys(policy, 64)).actions[:20], together[:20])


def test_the_answer_is_normalise_encode_sample_unnormalise(policy, demonstration):
    observation = rows(demonstration.observation, 8)
    output = policy.sample_actions(observation, keys(policy, 8), num_steps=3)
    seen = observation._replace(proprio=normalize(observation.proprio, policy.proprio_normalizer))
    method, params = policy.method, policy.params
    sample = jax.jit(lambda seen, keys: method.sample(params, method.encode(params, seen), keys, 3))(seen, keys(policy, 8))
    expected = np.asarray(sample.actions) * policy.action_normalizer.scale + policy.action_normalizer.shift
    low = np.array([d.low for d in policy.specs.action.dimensions])
    high = np.array([d.high for d in policy.specs.action.dimensions])
    np.testing.assert_allclose(output.actions, np.clip(expected, low, high), atol=1e-5)
    assert output.trace_energy.shape == (3, 8)
    np.testing.assert_array_equal(output.num_steps, 3)
    assert set(output.seconds) == {"prepare", "encode", "minimize", "total"}
    assert output.seconds["total"] >= output.seconds["minimize"] > 0


def test_energy_of_given_chunks_matches_the_sampled_one(policy, demonstration):
    """E(o, a) asked for the returned chunk is what the answer carried, of a robot without limits, which cut the chunk after the descent."""
    free = tuple(dataclasses.replace(d, kind="eef_delta", low=None, high=None) for d in policy.specs.action.dimensions)
    specs = dataclasses.replace(policy.specs, action=dataclasses.replace(policy.specs.action, dimensions=free))
    policy = dataclasses.replace(policy, specs=specs)
    observation = rows(demonstration.observation, 8)
    output = policy.sample_actions(observation, keys(policy, 8))
    np.testing.assert_allclose(policy.energy(observation, output.actions), output.energy, rtol=1e-3, atol=1e-3)


def test_keys_are_functions_of_seed_episode_and_step(policy):
    data = lambda seed, episodes, steps: np.asarray(jax.random.key_data(policy.sample_keys(seed, np.array(episodes), np.array(steps))))
    base = data(0, [3, 4], [5, 5])
    np.testing.assert_array_equal(base[0], data(0, [3], [5])[0])
    others = [data(1, [3], [5])[0], data(0, [5], [3])[0], data(0, [3], [6])[0], base[1]]
    assert all((base[0] != other).any() for other in others)


def test_an_observation_that_does_not_fit_is_named(policy):
    wrong = empty_batch(policy.specs, 2).observation._replace(proprio=np.zeros((2, 2, 20), np.float32))
    with pytest.raises(ValueError, match=r"observation.proprio must have shape \[b, 2, 21\] \(hand_x, .*got \[2, 2, 20\]"):
        policy.sample_actions(wrong, keys(policy, 2))


SPOILT = {
    "proprio": (
        lambda o: o._replace(proprio=np.where([True] + 20 * [False], np.nan, o.proprio)),
        r"proprio must be finite, got .* in hand_x",
    ),
    "no rows": (lambda o: rows(o, 0), r"proprio must have shape .* with b at least 1, got \[0, 2, 21\]"),
    "language rows": (lambda o: o._replace(language=o.language[:1]), "observation.language must be integers"),
    "language mask": (lambda o: o._replace(language_mask=o.language_mask.astype(np.int32)), "language_mask must be bool"),
    "timestep mask": (lambda o: o._replace(timestep_mask=o.timestep_mask[:1]), r"timestep_mask must be bool \[2, 2\], got bool \[1, 2\]"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_an_observation_that_cannot_be_read_is_refused(policy, demonstration, how):
    spoil, message = SPOILT[how]
    with pytest.raises(ValueError, match=message):
        policy.sample_actions(spoil(rows(demonstration.observation, 2)), keys(policy, 2))


def test_cameras_are_those_of_the_policy_each_with_its_mask():
    seeing = empty_batch(SEEING, 2).observation
    frames, masks = seeing.images["primary"], seeing.image_masks["primary"]
    check_observation(seeing, SEEING.observation)
    check_observation(seeing._replace(images={}, image_masks={}), SEEING.observation)  # a camera may be missing
    for images, image_masks, message in (
        ({"primry": frames}, {"primry": masks}, r"images must be among \['primary'\], .*got \['primry'\]"),
        ({"primary": frames}, {}, r"image_masks\['primary'\] must be bool \[2, 2\], got none"),
        ({"primary": frames}, {"primary": masks[:1]}, r"image_masks\['primary'\] must be bool \[2, 2\], got bool \[1, 2\]"),
        ({"primary": frames[:, 0]}, {"primary": masks}, r"images\['primary'\] must be uint8"),
    ):
        with pytest.raises(ValueError, match=message):
            check_observation(seeing._replace(images=images, image_masks=image_masks), SEEING.observation)


def test_keys_and_steps_are_counted(policy, demonstration):
    observation = rows(demonstration.observation, 2)
    for ask in (policy.sample_actions, policy.doubt):
        with pytest.raises(ValueError, match=r"keys must be one for each of 2 rows of the observation, got \[3\]"):
            ask(observation, keys(policy, 3))
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        policy.sample_actions(observation, keys(policy, 2), num_steps=0)


def test_load_takes_workdir_checkpoints_folder_or_step(tiny_run):
    newest = ebt_jax.load(tiny_run)
    assert newest.identity.step == 20
    assert newest.identity.method == "ebt"
    assert ebt_jax.load(tiny_run / "checkpoints").identity.sha256 == newest.identity.sha256
    older = ebt_jax.load(tiny_run / "checkpoints" / "10")
    assert older.identity.step == 10
    assert older.identity.sha256 != newest.identity.sha256
    assert ebt_jax.load(tiny_run, ema=False).identity.sha256 != newest.identity.sha256


def test_an_older_run_on_a_mixtures_file_needs_that_file_no_more(tiny_run, tmp_path):
    """Its config names a file that is not there; the shares are the checkpoint's own."""
    run = pathlib.Path(shutil.copytree(tiny_run, tmp_path / "run"))
    path = run / "checkpoints" / "20" / "assets" / "config.json"
    config = json.loads(path.read_text())
    config["data"]["mixture"] = "mine.json"
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        ebt_jax.load(run)  # what was sealed may not change
    digests = run / "checkpoints" / "20" / "assets" / DIGESTS
    sealed = json.loads(digests.read_text())
    sealed["files"]["config.json"] = hashlib.sha256(path.read_bytes()).hexdigest()
    digests.write_text(json.dumps(sealed))
    assert ebt_jax.load(run).experiment.datasets == ("metaworld_pick_place_v3",)


def test_load_says_what_is_wrong(tiny_run, tmp_path):
    with pytest.raises(CheckpointError, match="holds no finished checkpoint"):
        ebt_jax.load(tmp_path)
    unfinished = tiny_run / "checkpoints" / "15"
    unfinished.mkdir()
    try:
        with pytest.raises(CheckpointError, match="must hold a finished checkpoint, got none"):
            ebt_jax.load(unfinished)
    finally:
        unfinished.rmdir()


def test_specs_and_statistics_survive_the_checkpoint(policy):
    assert Specs.from_json(policy.specs.to_json()) == policy.specs
    assert json.loads(policy.statistics.to_json())["num_episodes"] == policy.statistics.num_episodes
    assert policy.specs.action.dimensions[3].kind == "gripper"
