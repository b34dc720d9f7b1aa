"""resized = W_y image W_x^T, W the triangle filter: the one resize of the loader, the policy and the server.

The filter widens with the reduction (antialiasing), as in `jax.image.resize(..., "linear", antialias=True)` and in Pillow's
BILINEAR, so a policy meets on the robot what it met in training.
"""

import functools

import numpy as np
from jaxtyping import Float, Int, UInt8


def resize(images: UInt8[np.ndarray, "*b y x c"], height: int, width: int) -> UInt8[np.ndarray, "*b {height} {width} c"]:
    """The images at height x width, rounded to the nearest integer. The same size comes back as it is.

    Raises ValueError for a size that is not positive.
    """
    if height < 1 or width < 1:
        raise ValueError(f"image size must be positive, got {height} x {width}.")
    *batch, y, x, c = images.shape
    if (y, x) == (height, width):
        return images
    result = np.empty((*batch, height, width, c), np.uint8)
    flat, flat_result = images.reshape(-1, y, x * c), result.reshape(-1, height, width, c)
    band = max(1, _BAND // (x * c))
    (above, across), (beside, along) = _triangle(y, height), _triangle(x, width)
    for image, resized in zip(flat, flat_result, strict=True):
        for first in range(0, height, band):
            part = slice(first, first + band)
            rows = _weighed(image, above[:, part], across[:, part])
            turned = np.ascontiguousarray(rows.reshape(-1, x, c).transpose(1, 2, 0)).reshape(x, -1)  # long rows for the other axis too
            columns = np.rint(_weighed(turned, beside, along))
            resized[part] = columns.reshape(width, c, -1).transpose(2, 0, 1)
    return result


_BAND = 2**15
"""Numbers in a band of rows: what is in between then fits the cache, and needs no fresh memory from the system for every frame."""


def _weighed(
    values: UInt8[np.ndarray, "old d"] | Float[np.ndarray, "old d"], sources: Int[np.ndarray, "k new"], weights: Float[np.ndarray, "k new"]
) -> Float[np.ndarray, "new d"]:
    """sum_k weights[k] values[sources[k]]: each output row reads only the few input rows under its triangle."""
    result = weights[0][:, None] * values[sources[0]]
    for source, weight in zip(sources[1:], weights[1:], strict=True):
        result += weight[:, None] * values[source]
    return result


@functools.lru_cache(maxsize=64)
def _triangle(old: int, new: int) -> tuple[Int[np.ndarray, "k {new}"], Float[np.ndarray, "k {new}"]]:
    """Input rows [k new] under each output row's triangle, with weights [k new] that sum to 1 over k."""
    scale = max(old / new, 1.0)
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.ceil(centre - scale).astype(int)
    sources = first + np.arange(int(np.ceil(2 * scale)) + 1)[:, None]
    weights = np.maximum(0.0, 1.0 - np.abs(sources - centre) / scale) * ((sources >= 0) & (sources < old))
    used = weights.any(axis=1)
    weights = weights / weights.sum(axis=0)
    return np.clip(sources, 0, old - 1)[used], weights[used].astype(np.float32)
