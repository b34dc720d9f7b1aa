"""A batch by the names that Octo's users know.

    ours                                       Octo's
    observation.images["primary"] [b t ...]    observation/image_primary
    observation.image_masks["primary"]         observation/pad_mask_dict/image_primary
    observation.proprio                        observation/proprio
    observation.timestep_mask                  observation/timestep_pad_mask
    observation.language, language_mask        task/language_instruction (input_ids, attention_mask; or the embedding)
    observation.images["goal_primary"][:, -1]  task/image_primary
    actions [b h a]                            action [b 1 h a]: chunks start at the newest step alone
    action_mask                                action_pad_mask [b 1 h a]

Masks keep their sense: True is real. Numbers stay normalised.
"""

from typing import Any

import numpy as np

from ebt_jax.specs import GOAL
from ebt_jax.types import Batch


def octo_batch(batch: Batch) -> dict[str, Any]:
    """The same arrays, views where that is possible, as Octo nests them."""
    observation = batch.observation
    goals = [camera for camera in observation.images if camera.startswith(GOAL)]
    views = [camera for camera in observation.images if not camera.startswith(GOAL)]
    steps = np.asarray(observation.timestep_mask)
    told = observation.language_mask.any(axis=1)
    seen = {f"image_{camera}": observation.image_masks[camera] for camera in views}
    shown = {f"image_{camera.removeprefix(GOAL)}": observation.image_masks[camera][:, -1] for camera in goals}
    language: Any = observation.language
    if language.ndim == 2:
        language = {"input_ids": language, "attention_mask": observation.language_mask.astype(np.int32)}
    else:
        language = language[:, 0]
    return {
        "observation": {
            **{f"image_{camera}": observation.images[camera] for camera in views},
            "proprio": observation.proprio,
            "timestep_pad_mask": steps,
            "timestep": np.maximum(np.cumsum(steps, axis=1) - 1, 0),
            "pad_mask_dict": {**seen, "proprio": steps & (observation.proprio.shape[2] > 0)},
        },
        "task": {
            "language_instruction": language,
            **{f"image_{camera.removeprefix(GOAL)}": observation.images[camera][:, -1] for camera in goals},
            "pad_mask_dict": {"language_instruction": told, **shown},
        },
        "action": batch.actions[:, None],
        "action_pad_mask": batch.action_mask[:, None],
    }
