"""Augmented images: still images, sample by sample, and exactly the originals where nothing is asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebt_jax.augment import Augmentation, augment
from ebt_jax.types import Observation

KEYS = jax.vmap(jax.random.key)(np.arange(6))


@pytest.fixture(scope="module")
def observation():
    """Two cameras that show a smooth ramp, two equal steps of history."""
    rows, columns = np.meshgrid(np.arange(16), np.arange(16), indexing="ij")
    image = np.stack([40 + 4 * rows, 60 + 5 * columns, 100 + 2 * rows], axis=-1).astype(np.uint8)
    images = np.broadcast_to(image, (6, 2, 16, 16, 3))
    return Observation(
        images={"primary": images, "wrist": images},
        image_masks={"primary": np.ones((6, 2), bool), "wrist": np.ones((6, 2), bool)},
        proprio=np.zeros((6, 2, 3), np.float32),
        language=np.zeros((6, 0), np.int32),
        language_mask=np.zeros((6, 0), bool),
        timestep_mask=np.ones((6, 2), bool),
    )


def changed(observation, **settings):
    return jax.jit(lambda o, keys: augment(Augmentation(**settings), o, keys))(observation, KEYS)


def test_nothing_asked_for_is_nothing_done(observation):
    assert augment(Augmentation(), observation, KEYS) is observation


def test_each_factor_does_what_it_says(observation):
    before = observation.images["primary"].astype(float)
    brighter = changed(observation, brightness=0.3).images["primary"].astype(float)
    factor = brighter.mean((1, 2, 3, 4)) / before.mean((1, 2, 3, 4))
    assert np.all((factor > 0.69) & (factor < 1.31))
    assert np.ptp(factor) > 0.05
    np.testing.assert_allclose(brighter, before * factor[:, None, None, None, None], atol=0.6)
    contrast = changed(observation, contrast=0.5).images["primary"].astype(float)
    np.testing.assert_allclose(contrast.mean((1, 2, 3, 4)), before.mean((1, 2, 3, 4)), atol=0.5)
    assert np.ptp(contrast.std((1, 2, 3, 4))) > 3
    saturation = changed(observation, saturation=0.5).images["primary"].astype(float)
    np.testing.assert_allclose(saturation.mean(-1), before.mean(-1), atol=0.6)
    assert np.abs(saturation - before).max() > 3


def test_a_crop_is_a_scaled_piece_of_the_image(observation):
    """On a linear ramp a crop is a ramp again: of gentler slope, within the original's range, the same for both steps."""
    after = changed(observation, crop=0.5).images["primary"].astype(float)
    slope = np.diff(after[..., 3:13, 8, 0], axis=2).mean((1, 2))
    assert np.all((slope > 1.9) & (slope < 4.1))
    assert np.ptp(slope) > 0.3
    assert after[..., 0].min() >= 40
    assert after[..., 0].max() <= 100
    np.testing.assert_array_equal(after[:, 0], after[:, 1])


def test_a_sample_is_changed_by_its_own_key_alone(observation):
    settings = {"crop": 0.7, "brightness": 0.2, "camera_dropout": 0.5}
    together = changed(observation, **settings)
    one = jax.tree.map(lambda x: x[2:3], observation)
    alone = jax.jit(lambda o, keys: augment(Augmentation(**settings), o, keys))(one, KEYS[2:3])
    for camera in ("primary", "wrist"):
        difference = together.images[camera][2].astype(int) - alone.images[camera][0]
        assert np.abs(difference).max() <= 1  # rounding
        np.testing.assert_array_equal(together.image_masks[camera][2], alone.image_masks[camera][0])
    assert np.any(together.images["primary"] != together.images["wrist"])


def test_cameras_drop_at_their_rate(observation):
    many = jax.tree.map(lambda x: np.repeat(x, 100, axis=0), observation)
    keys = jax.vmap(jax.random.key)(np.arange(600))
    masks = augment(Augmentation(camera_dropout=0.25), many, keys).image_masks
    kept = np.stack([masks["primary"][:, 0], masks["wrist"][:, 0]])
    assert abs(kept.mean() - 0.75) < 0.05  # four standard errors
    assert abs(np.corrcoef(kept)[0, 1]) < 0.17
    assert jnp.all(masks["primary"][:, 0] == masks["primary"][:, 1])


def test_no_draw_foretells_another(observation):
    """What each setting alone makes of a sample, by a statistic of the image that follows its draw, over 600 keys."""
    many = jax.tree.map(lambda x: np.repeat(x, 100, axis=0), observation)
    keys = jax.vmap(jax.random.key)(np.arange(600))

    def image(**settings):
        return np.asarray(augment(Augmentation(**settings), many, keys).images["primary"][:, 0], np.float64)

    draws = [
        np.diff(image(crop=0.5)[:, 3:13, 8, 0], axis=1).mean(1),
        image(hue=0.05)[..., 1].mean((1, 2)),
        image(saturation=0.5).std(-1).mean((1, 2)),
        image(contrast=0.5).std((1, 2, 3)),
        image(brightness=0.3).mean((1, 2, 3)),
        np.asarray(augment(Augmentation(camera_dropout=0.5), many, keys).image_masks["primary"][:, 0], np.float64),
    ]
    correlations = np.corrcoef(draws)[np.triu_indices(len(draws), 1)]
    assert np.abs(correlations).max() < 0.17  # four standard errors


def test_a_view_may_have_settings_of_its_own_and_its_goal_follows(observation):
    goals = observation._replace(
        images={**observation.images, "goal_wrist": observation.images["wrist"]},
        image_masks={**observation.image_masks, "goal_wrist": observation.image_masks["wrist"]},
    )
    after = changed(goals, brightness=0.5, views={"wrist": {"brightness": 0.0}})
    assert np.any(after.images["primary"] != observation.images["primary"])
    for camera in ("wrist", "goal_wrist"):
        np.testing.assert_array_equal(after.images[camera], observation.images["wrist"])


def test_a_turned_hue_keeps_grey_and_the_distance_from_it(observation):
    before = observation.images["primary"].astype(float)
    after = changed(observation, hue=0.05).images["primary"].astype(float)
    np.testing.assert_allclose(after.mean(-1), before.mean(-1), atol=0.6)
    np.testing.assert_allclose(after.std(-1), before.std(-1), atol=0.6)
    assert np.abs(after - before).max() > 3
    grey = observation._replace(images={"primary": np.full((6, 2, 16, 16, 3), 90, np.uint8)})
    np.testing.assert_array_equal(changed(grey, hue=0.5).images["primary"], 90)


def test_settings_of_unknown_views_are_refused():
    with pytest.raises(ValueError, match=r"augmentation\.views must map cameras .*got 'front'"):
        Augmentation(views={"front": {"crop": 0.9}})
    with pytest.raises(ValueError, match=r"settings among .*got 'wrist' with \{'blur': 1\.0\}"):
        Augmentation(views={"wrist": {"blur": 1.0}})
    with pytest.raises(ValueError, match=r"augmentation\.crop must lie in"):
        Augmentation(views={"wrist": {"crop": 0.0}})


@pytest.mark.parametrize(("name", "value"), [("crop", 0.0), ("crop", 1.5), ("brightness", 1.0), ("camera_dropout", -0.1)])
def test_bad_settings_are_named(name, value):
    with pytest.raises(ValueError, match=rf"augmentation\.{name} must lie in"):
        Augmentation(**{name: value})
