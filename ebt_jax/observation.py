"""What a caller shows a policy, held against the specs before anything reads it."""

import numpy as np

from ebt_jax.specs import ObservationSpec
from ebt_jax.types import AnyArray, Observation


def check_observation(observation: Observation, spec: ObservationSpec) -> None:
    """Raises ValueError, naming the array, where an observation in robot units does not fit; a camera of the spec may be missing."""
    proprio, t, names = np.asarray(observation.proprio, np.float32), spec.horizon, [dimension.name for dimension in spec.proprio]
    if proprio.ndim != 3 or proprio.shape[1:] != (t, len(names)) or not len(proprio):
        got = list(proprio.shape)
        raise ValueError(f"observation.proprio must have shape [b, {t}, {len(names)}] ({', '.join(names)}) with b at least 1, got {got}.")
    batch, wrong = len(proprio), [names[i] for i in np.flatnonzero(~np.isfinite(proprio).all(axis=(0, 1)))]
    if wrong:
        raise ValueError(f"observation.proprio must be finite, got NaN or infinity in {', '.join(wrong)}. Do not move on such a reading.")
    cameras = [camera.name for camera in spec.cameras]
    unknown = sorted(set(observation.images) - set(cameras))
    if unknown:
        raise ValueError(f"observation.images must be among {cameras}, the cameras of the policy, got {unknown}. Leave others out.")
    for name, frames in observation.images.items():
        if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[:2] != (batch, t) or frames.shape[-1] != 3:
            raise ValueError(
                f"observation.images[{name!r}] must be uint8 [{batch}, {t}, height, width, 3], got {frames.dtype} {list(frames.shape)}."
            )
        _check_array(f"image_masks[{name!r}]", observation.image_masks.get(name), (batch, t), "b")
    kind, tokens = spec.language.kind, (batch, spec.language.length)
    words = (*tokens, spec.language.size) if kind == "embedding" else tokens
    _check_array("language", observation.language, words, {"embedding": "f", "tokens": "iu", "none": "iuf"}[kind])
    _check_array("language_mask", observation.language_mask, tokens, "b")
    _check_array("timestep_mask", observation.timestep_mask, (batch, t), "b")


def _check_array(name: str, array: AnyArray | None, shape: tuple[int, ...], kinds: str) -> None:
    """Raises ValueError for an array of `observation` that is missing, of another shape, or of no dtype of these kinds."""
    if array is None or array.shape != shape or array.dtype.kind not in kinds:
        got = "none" if array is None else f"{array.dtype} {list(array.shape)}"
        rule = {"b": "bool", "iu": "integers", "f": "floats"}.get(kinds, "numbers")
        raise ValueError(f"observation.{name} must be {rule} {list(shape)}, got {got}.")
