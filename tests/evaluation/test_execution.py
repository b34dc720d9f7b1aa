"""What simulators say becomes what the loader would have made of it."""

import numpy as np
import pytest

from ebt_jax.evaluation.execution import History, assemble
from ebt_jax.specs import CameraSpec, Dimension, LanguageSpec, ObservationSpec
from ebt_jax.text import tokenize

SPEC = ObservationSpec(
    (CameraSpec("primary", 8, 8), CameraSpec("wrist", 8, 8)), (Dimension("x", "m"),), LanguageSpec("tokens", 4, 64), horizon=3
)


def seen(step: int) -> dict:
    return {
        "images": {"primary": np.full((4, 4, 3), step, np.uint8)},
        "proprio": np.array([step], np.float32),
        "language": "reach the goal",
    }


def test_before_the_start_the_first_step_is_repeated_and_masked() -> None:
    history = History(3, seen(0))
    history.extend([seen(1)])
    observation = assemble([history], SPEC, 1)
    np.testing.assert_array_equal(observation.proprio[0, :, 0], [0, 0, 1])
    np.testing.assert_array_equal(observation.timestep_mask[0], [False, True, True])
    np.testing.assert_array_equal(observation.images["primary"][0, :, 0, 0, 0], [0, 0, 1])


def test_only_the_newest_steps_are_kept() -> None:
    history = History(3, seen(0))
    history.extend([seen(step) for step in range(1, 9)])
    observation = assemble([history], SPEC, 1)
    np.testing.assert_array_equal(observation.proprio[0, :, 0], [6, 7, 8])
    assert observation.timestep_mask.all()


def test_the_batch_is_padded_and_a_missing_camera_is_left_out() -> None:
    histories = [History(3, seen(step)) for step in (5, 6)]
    observation = assemble(histories, SPEC, 4)
    np.testing.assert_array_equal(observation.proprio[:, -1, 0], [5, 6, 5, 5])
    assert set(observation.images) == {"primary"}
    ids, mask = tokenize("reach the goal", SPEC.language)
    np.testing.assert_array_equal(observation.language, np.stack([ids] * 4))
    np.testing.assert_array_equal(observation.language_mask, np.stack([mask] * 4))
    with pytest.raises(ValueError, match="between 1 and batch_size = 1, got 2"):
        assemble(histories, SPEC, 1)


def test_a_dropped_frame_is_masked_where_it_is_missing() -> None:
    """Row 0 lost its newest frame, row 1 an older one; neither loses what it has."""
    blind = {**seen(7), "images": {}}
    histories = [History(3, seen(5)), History(3, seen(5))]
    histories[0].extend([seen(6), blind])
    histories[1].extend([blind, seen(8)])
    observation = assemble(histories, SPEC, 2)
    np.testing.assert_array_equal(observation.image_masks["primary"], [[True, True, False], [True, False, True]])
    np.testing.assert_array_equal(observation.images["primary"][:, :, 0, 0, 0], [[5, 6, 0], [5, 0, 8]])
    assert assemble([History(3, blind)], SPEC, 1).images == {}
    with pytest.raises(ValueError, match=r"of which the policy reads \['primary', 'wrist'\], got \['wirst'\]"):
        assemble([History(3, {**seen(1), "images": {"wirst": np.zeros((4, 4, 3), np.uint8)}})], SPEC, 1)


def test_a_policy_without_language_gets_none_and_one_with_embeddings_is_refused() -> None:
    silent = ObservationSpec((), SPEC.proprio, LanguageSpec(), 3)
    assert assemble([History(3, seen(0))], silent, 2).language.shape == (2, 0)
    embedded = ObservationSpec((), SPEC.proprio, LanguageSpec("embedding", 1, 512), 3)
    with pytest.raises(ValueError, match="instructions come as text"):
        assemble([History(3, seen(0))], embedded, 2)
