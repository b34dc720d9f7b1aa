"""Messages <-> bytes: msgpack with arrays as openpi's clients write them, for bytes that nobody vouches for.

    {b"__ndarray__": True, b"dtype": "<f4", b"shape": [16, 7], b"data": <448 bytes>}

An array is made only where its dtype is one of a few plain numbers and its bytes are exactly as many as its shape says; both are
checked before numpy sees anything. (A decoder that takes the sender's dtype at its word can be made to read any memory.) There
is no pickle, no extension type and no object array, in either direction. What a frame declares is counted before any of it is made:
one byte stands for an empty map, of which a frame of a few megabytes could hold millions. Source of the format: openpi's
`msgpack_numpy.py`.
"""

import math
import reprlib
from typing import Any

import msgpack
import numpy as np

DTYPES = {"|b1": 1, "|u1": 1, "<i4": 4, "<i8": 8, "<f4": 4, "<f8": 8}
"""What may cross the wire, with the bytes of one entry: little-endian plain numbers."""

MAX_AXES = 6
MAX_VALUES = 4096
"""Values in one frame, a map's keys and values and a list's entries among them; an array's numbers are bytes and do not count."""

MAX_TEXT_BYTES = 65_536
"""Of one string that a client sends."""

# Of msgpack's first byte: how many bytes follow as the value, or as its length.
_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_LISTS, _MAPS = {0xDC: 2, 0xDD: 4}, {0xDE: 2, 0xDF: 4}


class WireError(ValueError):
    """Bytes that are no message of ours, or a message that cannot be sent."""


def decode(frame: bytes, max_text_bytes: int = MAX_TEXT_BYTES) -> Any:
    """The message in `frame`: dicts, lists, strings, numbers, None and numpy arrays (read-only views of the frame).

    Raises WireError for anything else, whatever the bytes are.
    """
    _check_size(frame)
    try:
        return msgpack.unpackb(frame, object_hook=_array, raw=False, max_str_len=max_text_bytes)
    except WireError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise WireError(f"a frame must be one msgpack message, got {type(error).__name__}: {str(error)[:200]}") from error


def encode(message: Any) -> bytes:
    """Inverse of `decode`, readable by openpi's clients. Raises WireError naming what cannot be sent."""
    try:
        return bytes(msgpack.packb(message, default=_plain, use_bin_type=True) or b"")
    except (ValueError, TypeError, OverflowError) as error:
        raise WireError(f"a message must hold dicts, lists, strings, numbers and plain arrays, got {error}") from error


def _check_size(frame: bytes) -> None:
    """Raises WireError for more than `MAX_VALUES` values, and for extension types, by the heads of the values alone."""
    at, declared, read = 0, 1, 0
    while read < declared:
        if declared > MAX_VALUES:
            raise WireError(f"a frame must hold at most {MAX_VALUES} values, got {declared} or more. Send numbers as arrays.")
        if at >= len(frame):
            return  # cut short: the decoder says so, having read no more than is here
        head, at, read = frame[at], at + 1, read + 1
        if head <= 0x7F or head >= 0xE0:  # a small whole number
            continue
        if head <= 0x8F:
            declared += 2 * (head & 0x0F)
        elif head <= 0x9F:
            declared += head & 0x0F
        elif head <= 0xBF:
            at += head & 0x1F
        elif head in _FIXED:
            at += _FIXED[head]
        elif head in _BYTES:
            length, at = _length(frame, at, _BYTES[head])
            at += length
        elif head in _LISTS:
            length, at = _length(frame, at, _LISTS[head])
            declared += length
        elif head in _MAPS:
            length, at = _length(frame, at, _MAPS[head])
            declared += 2 * length
        else:
            raise WireError(f"a frame must be one msgpack message without extension types, got a value that begins with {head:#x}.")


def _length(frame: bytes, at: int, size: int) -> tuple[int, int]:
    """The number in the `size` bytes at `at`, and the place behind it."""
    return int.from_bytes(frame[at : at + size], "big"), at + size


def _array(item: dict[Any, Any]) -> Any:
    """The array or scalar that a map stands for, or the map itself."""
    if b"__ndarray__" in item:
        size, shape, data = _item_size(item), item.get(b"shape"), item.get(b"data")
        if not isinstance(shape, list) or len(shape) > MAX_AXES or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
            raise WireError(f"the shape of an array must be at most {MAX_AXES} whole numbers, got {reprlib.repr(shape)}.")
        if not isinstance(data, bytes) or len(data) != math.prod(shape) * size:
            got = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
            raise WireError(f"the data of a {item[b'dtype']} array of shape {shape} must be {math.prod(shape) * size} bytes, got {got}.")
        return np.frombuffer(data, np.dtype(item[b"dtype"])).reshape(shape)
    if b"__npgeneric__" in item:
        _item_size(item)
        value = item.get(b"data")
        if not isinstance(value, bool | int | float):
            raise WireError(f"a numpy scalar must hold a number, got {type(value).__name__}.")
        return value
    return item


def _item_size(item: dict[Any, Any]) -> int:
    """Bytes of one entry. Raises WireError for a dtype that is not whitelisted."""
    dtype = item.get(b"dtype")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise WireError(f"the dtype of an array must be one of {', '.join(DTYPES)}, got {reprlib.repr(dtype)}.")
    return DTYPES[dtype]


def _plain(value: Any) -> Any:
    """What msgpack does not know of itself."""
    if isinstance(value, np.ndarray):
        if value.dtype.str not in DTYPES:
            raise TypeError(f"an array of dtype {value.dtype}")
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.bool_ | np.integer | np.floating):
        return value.item()
    raise TypeError(f"a {type(value).__name__}")
