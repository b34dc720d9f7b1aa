"""Bytes nobody vouches for: what is ours comes back unchanged, what is not is refused by name and never reaches numpy."""

import contextlib
import pickle
import sys

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import mutate

from ebt_jax.serving import wire


def _array(**changes):
    item = {"__ndarray__": True, "dtype": "<f4", "shape": [2, 3], "data": b"\0" * 24, **changes}
    item = {name.encode(): value for name, value in item.items()}
    return msgpack.packb({"x": item})


@pytest.mark.parametrize("dtype", wire.DTYPES)
def test_arrays_come_back_as_they_were(dtype):
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    found = wire.decode(wire.encode({"images/primary": values, "empty": np.zeros((0, 3), dtype)}))
    np.testing.assert_array_equal(found["images/primary"], values)
    assert found["images/primary"].dtype == values.dtype
    assert found["empty"].shape == (0, 3)


def test_plain_values_come_back_as_they_were():
    message = {"a": 1, "b": [1.5, None, True], "c": {"d": "grün"}, "e": b"raw"}
    assert wire.decode(wire.encode(message)) == message
    assert wire.decode(wire.encode({"x": np.float32(0.5), "n": np.int64(7), "b": np.bool_(True)})) == {"x": 0.5, "n": 7, "b": True}


@pytest.mark.parametrize("single", [False, True])
def test_every_head_of_a_value_is_counted_right(single):
    """Each of msgpack's ways to write a length: a value that is counted wrong would be refused, or the next one misread."""
    numbers = [sign * 2**bits for bits in (0, 6, 7, 15, 31, 62) for sign in (-1, 1)] + [2**8, 2**16, 2**32, 2**63, 0.5]
    texts = ["x" * size for size in (0, 31, 32, 256, 65_536)]
    many = {str(i): [] for i in range(16)}
    message = [
        *numbers,
        None,
        True,
        False,
        *texts,
        *(text.encode() for text in [*texts, "x" * 70_000]),
        [0] * 15,
        [0] * 16,
        {"a": {}},
        many,
    ]
    assert wire.decode(msgpack.packb(message, use_single_float=single)) == message
    assert wire.decode(b"\xdd\0\0\0\x01\xdf\0\0\0\x01\xa1a\x07") == [{"a": 7}]


def test_texts_are_as_long_as_the_reader_lets_them_be():
    frame = wire.encode({"vocabulary": "x" * 65_537})
    with pytest.raises(wire.WireError, match="one msgpack message, got ValueError: 65537 exceeds max_str_len"):
        wire.decode(frame)
    assert wire.decode(frame, max_text_bytes=len(frame)) == {"vocabulary": "x" * 65_537}


def test_a_clients_array_with_byte_keys_is_read():
    np.testing.assert_array_equal(wire.decode(_array())["x"], np.zeros((2, 3), np.float32))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (_array(dtype="|O"), r"dtype of an array must be one of .*got '\|O'"),
        (_array(dtype="<c8"), "dtype of an array"),
        (_array(dtype=[["a", "<f4"]]), "dtype of an array"),
        (_array(dtype=">f4"), "dtype of an array"),
        (_array(shape=[2, 4]), r"must be 32 bytes, got 24 bytes"),
        (_array(shape=[-2, -3]), "shape of an array"),
        (_array(shape=[2**40, 2**40]), "shape of an array"),
        (_array(shape=[1] * 7 + [6]), "shape of an array"),
        (_array(shape=[2.0, 3.0]), "shape of an array"),
        (_array(shape=[True, 6]), "shape of an array"),
        (_array(shape=6), "shape of an array"),
        (_array(data="0" * 24), "got str"),
        (msgpack.packb({"x": {b"__npgeneric__": True, b"dtype": "|O", b"data": 1}}), "dtype of an array"),
        (msgpack.packb({"x": {b"__npgeneric__": True, b"dtype": "<f4", b"data": "1"}}), "numpy scalar must hold a number"),
        (msgpack.packb(msgpack.ExtType(5, b"")), "without extension types"),
        (msgpack.packb(msgpack.Timestamp(1, 2)), "without extension types"),
        (msgpack.packb(list(range(5000))), "at most 4096 values, got 5001"),
        (msgpack.packb([[{}] * 1000] * 1000), "at most 4096 values"),
        (_array(shape=[[[]] * 500] * 5), "shape of an array"),
        (b"", "one msgpack message"),
        (b"\xc1", "one msgpack message"),
        (msgpack.packb({}) + b"\0", "one msgpack message"),
        (b"\x91" * 100_000, "at most 4096 values"),
        (b"\x91" * 2_000 + b"\xc0", "one msgpack message"),
        (b"\xdf\xff\xff\xff\xff", "at most 4096 values"),
        (b"\xdd\0\0\0\x05", "one msgpack message"),
        (b"\xc6\xff\xff\xff\xff", "one msgpack message"),
        (msgpack.packb({1: 2}), "one msgpack message"),
        (b"\xa2\xff\xfe", "one msgpack message"),
    ],
)
def test_hostile_frames_are_refused(frame, message):
    with pytest.raises(wire.WireError, match=message):
        wire.decode(frame)


@pytest.mark.parametrize("value", [np.array([None]), np.array(["a"]), np.zeros(2, np.complex64), object(), {1, 2}])
def test_what_cannot_be_sent_is_named(value):
    with pytest.raises(wire.WireError, match="got an? (array of dtype|object|set)|got a set"):
        wire.encode({"x": value})


def test_two_thousand_mutated_frames_are_read_or_refused():
    """Whatever becomes of a good frame: a message of plain parts, or WireError."""
    good = wire.encode({"images/primary": np.zeros((2, 8, 8, 3), np.uint8), "proprio": np.ones((2, 7), np.float32), "prompt": "pick"})
    refused = 0
    for frame in mutate(good, 2_000, seed=0):
        try:
            _check_plain(wire.decode(frame))
        except wire.WireError:
            refused += 1
    assert 200 < refused < 2_000


_unpickled: list[str] = []


def test_nothing_is_unpickled():
    """Python reports every class that a pickle names, before it is looked up."""
    sys.addaudithook(lambda event, arguments: _unpickled.append(event) if event == "pickle.find_class" else None)
    pickled = pickle.dumps(np.array([print, None]))
    frames = [_array(dtype="|O", shape=[1], data=pickled[:8]), _array(dtype="|u1", shape=[len(pickled)], data=pickled), pickled]
    for frame in [*frames, *mutate(frames[1], 300, seed=4)]:
        with contextlib.suppress(wire.WireError):
            wire.decode(frame)
    assert not _unpickled
    pickle.loads(pickled)
    assert _unpickled


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(frame):
    with contextlib.suppress(wire.WireError):
        _check_plain(wire.decode(frame))


def _check_plain(value):
    if isinstance(value, np.ndarray):
        assert value.dtype.str in wire.DTYPES
        np.sum(value.view(np.uint8) if value.size else value)  # every byte can be read
    elif isinstance(value, dict):
        for part in value.values():
            _check_plain(part)
    elif isinstance(value, list):
        for part in value:
            _check_plain(part)
    else:
        assert value is None or isinstance(value, bool | int | float | str | bytes)
