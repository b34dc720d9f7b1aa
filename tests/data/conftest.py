"""Small RLDS folders, and caches that stay with their test."""

import pathlib
from collections.abc import Callable, Iterator

import fsspec
import pytest
import toy_rlds
from fake_bucket import FakeBucket
from fsspec.registry import _registry

from ebt_jax.data.settings import DataSettings


@pytest.fixture(autouse=True)
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Indexes of a test stay with the test."""
    monkeypatch.setenv("EBT_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def make_folder(tmp_path: pathlib.Path) -> Callable[..., pathlib.Path]:
    """`toy_rlds.write_folder` into this test's data_dir, `tmp_path / "data"`."""
    return lambda *args, **kwargs: toy_rlds.write_folder(tmp_path / "data", *args, **kwargs)


@pytest.fixture(params=["tfrecord", "array_record"])
def toy(request: pytest.FixtureRequest, make_folder: Callable[..., pathlib.Path]) -> pathlib.Path:
    """The toy dataset in either file format."""
    return make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards()}, toy_rlds.SPEC, request.param)


@pytest.fixture
def settings(tmp_path: pathlib.Path) -> Callable[..., DataSettings]:
    """DataSettings over this test's data_dir: the toy dataset with its camera, everything trains unless told otherwise."""
    defaults = {
        "data_dir": str(tmp_path / "data"),
        "mixture": "toy",
        "observation_horizon": 2,
        "action_horizon": 4,
        "image_size": 8,
        "cameras": ("primary",),
        "validation_fraction": 0.0,
        "normalization": "min_max",
    }
    return lambda **changes: DataSettings(**{**defaults, **changes})


@pytest.fixture
def bucket(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeBucket]]:
    """gs://data is this test's data_dir, as fsspec shows a bucket."""
    monkeypatch.setattr(FakeBucket, "root", tmp_path)
    monkeypatch.setattr(FakeBucket, "reads", [])
    monkeypatch.setattr(FakeBucket, "failures", {})
    before = dict(_registry)
    fsspec.register_implementation("gs", FakeBucket, clobber=True)
    yield FakeBucket
    _registry.clear()
    _registry.update(before)
