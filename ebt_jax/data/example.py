"""tf.train.Example without protobuf: where in the record each feature's values lie, and the values as views of it.

An Example is a map from names to lists of bytes, floats or integers. All steps of an episode share one list: a [T, 7] action
is one list of 7 T floats, T images are one list of T byte strings. So a frame can be found, and read, without the others.

    Example  {1: Features}    Features {1: entry}*    entry {1: name, 2: Feature}
    Feature  {1: BytesList | 2: FloatList | 3: Int64List}, each {1: value}*, numbers packed
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

_KINDS: dict[int, Literal["bytes", "float", "int"]] = {1: "bytes", 2: "float", 3: "int"}
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


class Values(NamedTuple):
    """One feature's list: record[start:stop] is its wire-format message."""

    kind: Literal["bytes", "float", "int"]
    start: int
    stop: int


def parse(record: bytes) -> dict[str, Values]:
    """Feature name -> where its values lie. Raises ValueError for bytes that are no Example."""
    found = {}
    for _, start, stop in _messages(record, 0, len(record)):
        for _, entry, entry_stop in _messages(record, start, stop):
            name, values = "", None
            for number, a, b in _messages(record, entry, entry_stop):
                if number == 1:
                    name = record[a:b].decode()
                else:
                    values = next((Values(_KINDS[kind], c, d) for kind, c, d in _messages(record, a, b) if kind in _KINDS), None)
            if values is not None:
                found[name] = values
    return found


def spans(record: bytes, values: Values) -> list[tuple[int, int]]:
    """(offset, size) of each byte string of a bytes list."""
    return [(start, stop - start) for _, start, stop in _messages(record, values.start, values.stop)]


def packed(record: bytes, values: Values) -> tuple[int, int]:
    """(offset, size) in bytes of a float list's numbers, which lie together as little-endian float32."""
    messages = _messages(record, values.start, values.stop)
    if len(messages) > 1:
        raise ValueError("a list of numbers must be packed in one piece, as TensorFlow writes it")
    return (messages[0][1], messages[0][2] - messages[0][1]) if messages else (values.start, 0)


def floats(record: bytes, values: Values) -> Float32[np.ndarray, " n"]:
    """The numbers of a float list, a view of the record."""
    offset, size = packed(record, values)
    return np.frombuffer(record, "<f4", size // 4, offset)


def ints(record: bytes, values: Values) -> Int64[np.ndarray, " n"]:
    """The numbers of an integer list, decoded from base 128."""
    offset, size = packed(record, values)
    raw = np.frombuffer(record, np.uint8, size, offset)
    last = raw < 128
    if last.all():
        return raw.astype(np.int64)
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    place = np.arange(size) - np.repeat(starts, np.diff(np.append(starts, size)))
    digits = (raw & 127).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(digits, starts).view(np.int64)


def numbers(record: bytes, values: Values) -> NDArray:
    """A float or integer list as it is stored."""
    return floats(record, values) if values.kind == "float" else ints(record, values)


def _messages(record: bytes, start: int, stop: int) -> list[tuple[int, int, int]]:
    """(field number, start, stop) of each length-delimited field in record[start:stop]; other fields are skipped."""
    found, at = [], start
    try:
        while at < stop:
            tag, at = _varint(record, at)
            wire = tag & 7
            if wire == _LENGTH:
                size, at = _varint(record, at)
                found.append((tag >> 3, at, at + size))
                at += size
            elif wire == _VARINT:
                _, at = _varint(record, at)
            elif wire in (_FIXED32, _FIXED64):
                at += 4 if wire == _FIXED32 else 8
            else:
                raise ValueError(f"a record must be a tf.train.Example, got wire type {wire} at byte {at}")
    except IndexError:
        at = stop + 1
    if at != stop:
        raise ValueError(f"a record must be a tf.train.Example, got a field that ends past byte {stop}")
    return found


def _varint(record: bytes, at: int) -> tuple[int, int]:
    value = record[at]
    at += 1
    if value < 128:
        return value, at
    value &= 127
    shift = 7
    while True:
        byte = record[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
