"""resized = W_y image W_x^T, W the triangle filter: the one resize of the loader, the policy and the server.

The filter widens with the reduction (antialiasing), as in `jax.image.resize(..., "linear", antialias=True)` and in Pillow's
BILINEAR, so a policy meets on the robot what it met in training.

`resize.c` does the same in a fifth of the time, where installing found a compiler. Both take the same products and sums of float32 in
the same order, so nobody can tell from a pixel which of them made it: training may run with it and a robot without.
"""

import ctypes
import functools

import numpy as np
from jaxtyping import Float, Int, UInt8


def resize(images: UInt8[np.ndarray, "*b y x c"], height: int, width: int) -> UInt8[np.ndarray, "*b {height} {width} c"]:
    """The images at height x width, rounded to the nearest integer. The same size comes back as it is.

    Raises ValueError for a size that is not positive, or pixels that are not uint8.
    """
    if height < 1 or width < 1:
        raise ValueError(f"image size must be positive, got {height} x {width}.")
    *batch, y, x, c = images.shape
    if (y, x) == (height, width):
        return images
    result = np.empty((*batch, height, width, c), np.uint8)
    for image, resized in zip(images.reshape(-1, y, x, c), result.reshape(-1, height, width, c), strict=True):
        resize_into(image, resized)
    return result


def resize_into(image: UInt8[np.ndarray, "y x c"], resized: UInt8[np.ndarray, "height width c"]) -> None:
    """Writes the image at the size of `resized`, whose numbers must lie together, into it."""
    if image.dtype != np.uint8:
        raise ValueError(f"images must be uint8, got {image.dtype}.")
    if image.shape == resized.shape:
        resized[:] = image
    elif COMPILED is None:
        _resize(image, resized)
    else:
        _resize_compiled(COMPILED, np.ascontiguousarray(image), resized)


def _load() -> ctypes.CDLL | None:
    try:
        return np.ctypeslib.load_library("_resize.abi3.so", __file__)
    except OSError:
        return None


COMPILED = _load()
"""`resize.c`, or None where it was not compiled."""


def _resize_compiled(library: ctypes.CDLL, image: UInt8[np.ndarray, "y x c"], resized: UInt8[np.ndarray, "height width c"]) -> None:
    (y, x, c), (height, width, _) = image.shape, resized.shape
    (top, above), (left, beside) = _triangle(y, height), _triangle(x, width)
    row, line = np.empty(x * c + 4, np.float32), np.empty(width * c + 4, np.float32)
    numbers = [image, x, c, resized, height, width, top, above, above.shape[1], left, beside, beside.shape[1], row, line]
    library.resize(*(ctypes.c_int64(n) if isinstance(n, int) else ctypes.c_void_p(n.ctypes.data) for n in numbers))


_BAND = 2**15
"""Numbers in a band of rows: what is in between then fits the cache, and needs no fresh memory from the system for every frame."""


def _resize(image: UInt8[np.ndarray, "y x c"], resized: UInt8[np.ndarray, "height width c"]) -> None:
    (y, x, c), (height, width, _) = image.shape, resized.shape
    (top, above), (left, beside) = _triangle(y, height), _triangle(x, width)
    band = max(1, _BAND // (x * c))
    for first in range(0, height, band):
        part = slice(first, first + band)
        rows = _weighed(image.reshape(y, x * c), top[part], above[part])
        turned = np.ascontiguousarray(rows.reshape(-1, x, c).transpose(1, 2, 0)).reshape(x, -1)  # long rows for the other axis too
        columns = np.rint(_weighed(turned, left, beside))
        resized[part] = columns.reshape(width, c, -1).transpose(2, 0, 1)


def _weighed(
    values: UInt8[np.ndarray, "old d"] | Float[np.ndarray, "old d"], first: Int[np.ndarray, " new"], weights: Float[np.ndarray, "new k"]
) -> Float[np.ndarray, "new d"]:
    """sum_k weights[:, k] values[first + k]: each output row reads only the few input rows under its triangle."""
    result = weights[:, :1] * values[first]
    for k in range(1, weights.shape[1]):
        result += weights[:, k : k + 1] * values[first + k]
    return result


@functools.lru_cache(maxsize=64)
def _triangle(old: int, new: int) -> tuple[Int[np.ndarray, " {new}"], Float[np.ndarray, "{new} k"]]:
    """The first of k input rows [new] under each output row's triangle, and their weights [new k], which sum to 1 over k.

    k is the most that any of them needs, and all lie inside the image: some weights are 0.
    """
    scale = max(old / new, 1.0)
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    low = np.maximum(np.ceil(centre - scale), 0)
    high = np.minimum(np.floor(centre + scale), old - 1)
    taps = int((high - low).max()) + 1
    first = np.minimum(low, old - taps).astype(np.int64)
    weights = np.maximum(0.0, 1.0 - np.abs(first[:, None] + np.arange(taps) - centre[:, None]) / scale)
    return first, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
