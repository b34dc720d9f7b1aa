"""What becomes of a good frame in bad hands: flipped bits, cut, doubled and swapped pieces, lengths that lie."""

from collections.abc import Iterator

import numpy as np


def mutate(frame: bytes, count: int, seed: int) -> Iterator[bytes]:
    """`count` frames, each `frame` with one to four injuries; a function of `seed`."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        hurt = bytearray(frame)
        for _ in range(rng.integers(1, 5)):
            hurt = _INJURIES[rng.integers(len(_INJURIES))](hurt, rng)
        yield bytes(hurt)


def _flip(frame: bytearray, rng: np.random.Generator) -> bytearray:
    if frame:
        frame[rng.integers(len(frame))] ^= 1 << int(rng.integers(8))
    return frame


def _overwrite(frame: bytearray, rng: np.random.Generator) -> bytearray:
    """A byte that begins a msgpack type, early in the frame, where the structure is."""
    if frame:
        frame[rng.integers(min(len(frame), 64))] = int(rng.integers(0x80, 0x100))
    return frame


def _cut(frame: bytearray, rng: np.random.Generator) -> bytearray:
    return frame[: rng.integers(len(frame) + 1)]


def _insert(frame: bytearray, rng: np.random.Generator) -> bytearray:
    place = int(rng.integers(len(frame) + 1))
    return frame[:place] + bytearray(rng.bytes(int(rng.integers(1, 9)))) + frame[place:]


def _double(frame: bytearray, rng: np.random.Generator) -> bytearray:
    start = int(rng.integers(len(frame) + 1))
    piece = frame[start : start + int(rng.integers(1, 64))]
    return frame[:start] + piece + frame[start:]


def _replace_word(frame: bytearray, rng: np.random.Generator) -> bytearray:
    """Another dtype, another marker: what an attacker would write."""
    old = (b"<f4", b"|u1", b"__ndarray__", b"shape", b"dtype", b"data")[rng.integers(6)]
    new = (b"|O8", b"<c8", b"|V9", b"__npgeneric__"[: len(old)], b"\xff" * len(old), b"")[rng.integers(6)]
    return bytearray(bytes(frame).replace(old, new, 1))


_INJURIES = (_flip, _overwrite, _cut, _insert, _double, _replace_word)
