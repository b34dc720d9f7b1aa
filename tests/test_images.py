"""The one resize equals jax's and Pillow's antialiased linear filter, to a grey level, and compiled it has the same bits."""

import ctypes
import hashlib
import pathlib
import shutil
import subprocess
import tomllib

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from PIL import Image

from ebt_jax import images as module
from ebt_jax.images import resize, resize_into

ROOT = pathlib.Path(__file__).parents[1]


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


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """`resize.c` as installing compiles it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    (extension,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"]
    library = tmp_path_factory.mktemp("compiled") / "resize.so"
    sources = [ROOT / source for source in extension["sources"]]
    subprocess.run([compiler, *extension["extra-compile-args"], "-shared", "-fPIC", "-o", library, *sources], check=True)
    return ctypes.CDLL(str(library))


@hypothesis.given(st.tuples(*[st.integers(1, 90)] * 4), st.integers(1, 4))
@hypothesis.settings(max_examples=200, deadline=None)
def test_compiled_or_not_the_bits_are_the_same(compiled, sizes, channels):
    y, x, height, width = sizes
    image, one, other = _noise(y, x, channels), *np.zeros((2, height, width, channels), np.uint8)
    module._resize(image, one)
    module._resize_compiled(compiled, image, other)
    np.testing.assert_array_equal(one, other)


def test_the_bits_are_those_that_checkpoints_were_trained_on(monkeypatch, compiled):
    for library in (None, compiled):
        monkeypatch.setattr(module, "COMPILED", library)
        found = [resize(_noise(*old, 3), *new).tobytes() for old, new in [((480, 640), (224, 224)), ((256, 256), (224, 224))]]
        assert [hashlib.sha256(pixels).hexdigest()[:16] for pixels in found] == ["01dd5b1499fb1e51", "6ec8091fc7c72936"]


def test_writes_into_a_place_of_a_batch():
    batch, image = np.zeros((2, 8, 8, 3), np.uint8), _noise(30, 20, 3)
    resize_into(image[:, ::-1], batch[1])
    np.testing.assert_array_equal(batch[1], resize(np.ascontiguousarray(image[:, ::-1]), 8, 8))
    assert not batch[0].any()
    resize_into(batch[1], batch[0])
    np.testing.assert_array_equal(batch[0], batch[1])


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
