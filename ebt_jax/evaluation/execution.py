"""From what simulators say to what a policy reads: history, masks, and one batch size for ever.

History of horizon 3 after two steps: (0) 0 1   the first step stands in for what came before it, masked.
"""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from jaxtyping import Bool, UInt8

from ebt_jax.specs import Camera, ObservationSpec
from ebt_jax.text import tokenize
from ebt_jax.types import Observation


class History:
    """The last `horizon` observations of one episode."""

    def __init__(self, horizon: int, first: dict[str, Any]) -> None:
        self._seen = [first]
        self._horizon = horizon

    def extend(self, observations: Sequence[dict[str, Any]]) -> None:
        self._seen = [*self._seen, *observations][-self._horizon :]

    def steps(self) -> tuple[list[dict[str, Any]], list[bool]]:
        """`horizon` observations, the newest last, and which of them happened."""
        missing = self._horizon - len(self._seen)
        return [self._seen[0]] * missing + self._seen, [False] * missing + [True] * len(self._seen)


def assemble(histories: Sequence[History], spec: ObservationSpec, batch_size: int) -> Observation:
    """Histories as the policy's observation in robot units, padded to `batch_size` by repeating the first.

    Of the cameras those that the policy reads; one that nobody has is left out, and a step that lacks it is masked: robots drop frames.
    Raises ValueError for more histories than rows, for a name that is no camera's, and for a policy that wants its instruction as a
    dataset's embedding, which a simulator cannot give.
    """
    if not 1 <= len(histories) <= batch_size:
        raise ValueError(f"histories must be between 1 and batch_size = {batch_size}, got {len(histories)}.")
    if spec.language.kind == "embedding":
        raise ValueError("the policy's language must be 'tokens' or 'none' for a simulator, got 'embedding': instructions come as text.")
    rows = [history.steps() for history in histories]
    rows += rows[:1] * (batch_size - len(rows))
    seen = {name for steps, _ in rows for step in steps for name in step["images"]}
    cameras = [camera.name for camera in spec.cameras]
    unknown = sorted(seen - set(get_args(Camera)))
    if unknown:
        raise ValueError(f"cameras must be named as in specs, of which the policy reads {cameras}, got {unknown}.")
    views = {name: _frames([[step["images"].get(name) for step in steps] for steps, _ in rows]) for name in cameras if name in seen}
    happened = np.array([mask for _, mask in rows])
    language, language_mask = np.zeros((batch_size, 0), np.int32), np.zeros((batch_size, 0), bool)
    if spec.language.kind == "tokens":
        tokens = [tokenize(steps[-1]["language"], spec.language) for steps, _ in rows]
        language, language_mask = (np.stack(part) for part in zip(*tokens, strict=True))
    return Observation(
        images={name: frames for name, (frames, _) in views.items()},
        image_masks={name: mask for name, (_, mask) in views.items()},
        proprio=np.stack([[step["proprio"] for step in steps] for steps, _ in rows]),
        language=language,
        language_mask=language_mask,
        timestep_mask=happened,
    )


def _frames(rows: Sequence[Sequence[UInt8[np.ndarray, "y x 3"] | None]]) -> tuple[UInt8[np.ndarray, "b t y x 3"], Bool[np.ndarray, "b t"]]:
    """One camera's frames, black where there is none, and where there is one."""
    black = np.zeros_like(next(frame for steps in rows for frame in steps if frame is not None))
    frames = np.stack([[black if frame is None else frame for frame in steps] for steps in rows])
    return frames, np.array([[frame is not None for frame in steps] for steps in rows])
