"""Digests follow an array's bits and places, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ebt_jax.digests
from ebt_jax.digests import changed, digests
from ebt_jax.sharding import make_mesh, shardings


@pytest.fixture(autouse=True, params=["host", "devices"])
def place(request, monkeypatch):
    """Every test, with every array summed here or there."""
    monkeypatch.setattr(ebt_jax.digests, "SMALL", 2**30 if request.param == "host" else 0)


def mix(x):
    x = (x ^ x >> 16) * 0x85EBCA6B % 2**32
    x = (x ^ x >> 13) * 0xC2B2AE35 % 2**32
    return x ^ x >> 16


def test_the_formula():
    values = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    words = values.view(np.uint32).ravel().tolist()
    want = sum(mix(word ^ mix(place)) for place, word in enumerate(words)) % 2**32
    assert digests({"a": values}) == {"a": f"{want:08x}"}


def test_host_and_devices_agree(monkeypatch):
    values = np.random.default_rng(0).integers(0, 255, 96, np.uint8)
    tree = [values.view(dtype).reshape(2, -1) for dtype in ("float32", "float16", jnp.bfloat16, "int32", "uint8", "int8")]
    tree += [values > 100, np.int32(7), np.zeros((0, 3), np.float32)]
    found = []
    for small in (0, 2**30):
        monkeypatch.setattr(ebt_jax.digests, "SMALL", small)
        found.append(digests(tree))
    assert found[0] == found[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int32", "uint32", "int8", "uint8", "bool"])
def test_every_flipped_bit_changes_it(dtype):
    values = np.asarray(jnp.arange(24).reshape(2, 3, 4) % 2, dtype)
    before = digests(values)
    places = range(values.nbytes) if dtype != "bool" else ()
    for place in places:
        for bit in range(8):
            other = values.copy()
            other.view(np.uint8).reshape(-1)[place] ^= 1 << bit
            assert changed(digests(other), before)
    swapped = values.copy()
    swapped[0, 0, :2] = swapped[0, 0, 1::-1]
    assert changed(digests(swapped), before)
    assert not changed(digests(values.copy()), before)


def test_what_is_not_a_number_has_one_too():
    """Bits count, not values: NaN is itself, and 0 is not -0."""
    values = np.array([np.nan, 0.0, 1e-40], np.float32)
    assert digests(values) == digests(values.copy())
    assert digests(values) != digests(values * np.array([1, -1, 1], np.float32))


def test_it_is_the_same_however_the_array_is_shared_out():
    tree = {"w": np.random.default_rng(0).standard_normal((256, 512)).astype(np.float32), "step": np.int32(3)}
    alone = digests(tree)
    for sizes in ((8, 1), (2, 4), (1, 8)):
        mesh = make_mesh(*sizes)
        assert digests(jax.device_put(tree, shardings(tree, mesh))) == alone


def test_paths_that_differ_are_listed():
    assert changed({"a": "1", "b": "2", "d": "4"}, {"a": "1", "b": "3", "c": "3"}) == ["b", "c", "d"]
