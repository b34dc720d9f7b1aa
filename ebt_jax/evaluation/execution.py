"""From what simulators say to what a policy reads: history, masks, and one batch size for ever.

History of horizon 3 after two steps: (0) 0 1   the first step stands in for what came before it, masked.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ebt_jax.specs import ObservationSpec
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

    Cameras that the simulator does not have are left out. Raises ValueError for more histories than rows, and for a policy
    that wants its instruction as a dataset's embedding, which a simulator cannot give.
    """
    if not 1 <= len(histories) <= batch_size:
        raise ValueError(f"histories must be between 1 and batch_size = {batch_size}, got {len(histories)}.")
    if spec.language.kind == "embedding":
        raise ValueError("the policy's language must be 'tokens' or 'none' for a simulator, got 'embedding': instructions come as text.")
    rows = [history.steps() for history in histories]
    rows += rows[:1] * (batch_size - len(rows))
    cameras = [camera.name for camera in spec.cameras if camera.name in rows[0][0][0]["images"]]
    happened = np.array([mask for _, mask in rows])
    language, language_mask = np.zeros((batch_size, 0), np.int32), np.zeros((batch_size, 0), bool)
    if spec.language.kind == "tokens":
        tokens = [tokenize(steps[-1]["language"], spec.language) for steps, _ in rows]
        language, language_mask = (np.stack(part) for part in zip(*tokens, strict=True))
    return Observation(
        images={name: np.stack([[step["images"][name] for step in steps] for steps, _ in rows]) for name in cameras},
        image_masks={name: np.ones(happened.shape, bool) for name in cameras},
        proprio=np.stack([[step["proprio"] for step in steps] for steps, _ in rows]),
        language=language,
        language_mask=language_mask,
        timestep_mask=happened,
    )
