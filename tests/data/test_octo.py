"""A batch by Octo's names: the same arrays, with masks of the same sense."""

import numpy as np
import toy_rlds

from ebt_jax.data.loader import make_loader
from ebt_jax.data.mixture import open_mixture
from ebt_jax.data.octo import octo_batch


def test_every_array_has_octo_s_name_and_mask(make_folder, settings):
    make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards()}, toy_rlds.SPEC)
    mixture = open_mixture(settings(cameras=("primary", "goal_primary"), language_dropout=0.5))
    batch = next(make_loader(mixture, "train", 16, seed=0, num_threads=0))
    named, seen = octo_batch(batch), batch.observation
    np.testing.assert_array_equal(named["observation"]["image_primary"], seen.images["primary"])
    np.testing.assert_array_equal(named["task"]["image_primary"], seen.images["goal_primary"][:, -1])
    np.testing.assert_array_equal(named["task"]["language_instruction"]["input_ids"], seen.language)
    assert named["task"]["pad_mask_dict"]["image_primary"].all()
    told = named["task"]["pad_mask_dict"]["language_instruction"]
    assert 0 < told.sum() < 16
    np.testing.assert_array_equal(told, named["task"]["language_instruction"]["attention_mask"].any(axis=1))
    np.testing.assert_array_equal(named["observation"]["timestep_pad_mask"], seen.timestep_mask)
    assert named["action"].shape == named["action_pad_mask"].shape == (16, 1, 4, 3)
    assert "image_goal_primary" not in named["observation"]
