"""The one resize equals jax's and Pillow's antialiased linear filter, to a grey level."""

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from PIL import Image

from ebt_jax.images import resize


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@hypothesis.given(st.tuples(*[st.integers(1, 40)] * 4))
@hypothesis.settings(max_examples=25, deadline=None)
def test_matches_jax(sizes):
    y, x, height, width = sizes
    images = _noise(2, y, x, 3)
    expected = jax.image.resize(images.astype(np.float32), (2, height, width, 3), "linear", antialias=True)
    assert np.abs(resize(images, height, width) - np.asarray(expected)).max() <= 0.5 + 1e-2


@pytest.mark.parametrize(("old", "new"), [((480, 640), (64, 64)), ((48, 64), (96, 100)), ((84, 84), (83, 85))])
def test_matches_pillow(old, new):
    image = _noise(*old, 3)
    expected = np.asarray(Image.fromarray(image).resize(new[::-1], Image.Resampling.BILINEAR))
    assert np.abs(resize(image, *new).astype(int) - expected).max() <= 1


def test_constants_stay_constant_and_the_same_size_is_untouched():
    assert (resize(np.full((7, 9, 3), 200, np.uint8), 3, 20) == 200).all()
    image = _noise(5, 6, 3)
    assert resize(image, 5, 6) is image


def test_a_batch_is_its_images():
    images = _noise(2, 3, 20, 30, 3)
    batch = resize(images, 8, 8)
    assert batch.shape == (2, 3, 8, 8, 3)
    np.testing.assert_array_equal(batch[1, 2], resize(images[1, 2], 8, 8))


def test_refuses_an_empty_size():
    with pytest.raises(ValueError, match="image size must be positive, got 0 x 4"):
        resize(_noise(5, 6, 3), 0, 4)
