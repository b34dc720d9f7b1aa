"""What is left out is what the settings name, counted; what stays keeps its episodes whole."""

import dataclasses
import json

import numpy as np
import pytest
import toy_rlds

from ebt_jax.data.loader import make_loader
from ebt_jax.data.mixture import episodes, open_mixture
from ebt_jax.data.settings import Filters
from ebt_jax.training.settings import Settings

SUCCESS = {"success": {"tensor": {"shape": {}, "dtype": "bool", "encoding": "none"}}}


def _kept(mixture):
    split = mixture.main.train
    located, steps = split.locate(np.arange(len(split)))
    numbers = split.index.columns["action"][located["start"], 0].astype(int)
    return [tuple(row) for row in np.stack([numbers, steps], 1).tolist()]


def test_episodes_go_for_the_first_reason_they_meet_and_are_counted(make_folder, settings):
    made = [toy_rlds.make_episode(number, length) for number, length in enumerate((1, 4, 4, 4, 4, 4))]
    for number, episode in enumerate(made):
        episode["/success"] = np.array([number not in (0, 2)])
    made[3]["language_instruction"] = [b" "] * 4
    made[4]["action"][1, 0] = 1000
    spec = dataclasses.replace(toy_rlds.SPEC, success_key="success")
    make_folder("toy", toy_rlds.STEPS, {"train": [made]}, spec, beside=SUCCESS)
    chosen = Filters(min_steps=2, require_instruction=True, require_success=True, max_action=2.0)
    mixture = open_mixture(settings(filters=chosen, normalization="mean_std"))
    assert mixture.main.left_out == {
        "short episodes": 1,  # which failed too
        "episodes without instruction": 1,
        "failed episodes": 1,
        "episodes out of range": 1,
    }
    assert sorted({number for number, _ in _kept(mixture)}) == [1, 5]
    assert mixture.statistics.num_episodes == 2
    assert mixture.statistics.action.max[0] == 5
    assert "toy: left out by filters: 1 short episodes, 1 episodes without instruction" in mixture.describe()
    assert json.loads(mixture.manifest())[0]["left_out"] == mixture.main.left_out


def test_windows_that_begin_idle_go_and_frames_stay(make_folder, settings):
    still = np.zeros((10, 3), np.float32)
    moving = still.copy()
    moving[3:5, 0] = 1.0  # two steps of motion
    moving[8:, 2] = 1.0  # the gripper changes at step 8
    moving[:, 1] = 0.01  # a tremor below the threshold, which is a share of the largest motion
    moving[4, 1] = 1.0
    made = [{**toy_rlds.make_episode(number, 10), "action": action} for number, action in enumerate((moving, still))]
    make_folder("toy", toy_rlds.STEPS, {"train": [made]}, toy_rlds.SPEC)
    mixture = open_mixture(settings(filters=Filters(idle_steps=2, idle_below=0.05), normalization="min_max"))
    split = mixture.main.train
    located, steps = split.locate(np.arange(len(split)))
    assert located["shard"].tolist() == [0] * len(split)
    assert steps.tolist() == [2, 3, 4, 7, 8]
    assert mixture.main.left_out == {"idle windows": 15}
    assert mixture.statistics.num_transitions == 5
    batch = mixture.batch(mixture.main, split, np.array([0]))
    assert batch.action_mask.all()  # the chunk at step 2 goes on through 3, 4, 5
    assert [len(episode.actions) for episode in episodes(mixture, "train")] == [10, 10]
    seen = next(make_loader(mixture, "train", 5, seed=0, num_threads=0))
    assert seen.actions.shape == (5, 4, 3)


def test_filters_that_leave_nothing_say_so(toy, settings):
    with pytest.raises(ValueError, match=r"at least one window of dataset 'toy', got none; they left out \{'short episodes': 8\}"):
        open_mixture(settings(filters=Filters(min_steps=100)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"min_steps": 0}, "min_steps must be"), ({"idle_below": 0.0}, "idle_below in"), ({"max_action": -1.0}, "max_action must be")],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        Filters(**changes)


def test_a_config_s_filters_are_checked_by_name(tiny_config):
    def read(filters):
        return Settings.from_dict({**tiny_config, "data": {**tiny_config["data"], "filters": filters}}).data.filters

    assert read({"min_steps": 3}) == Filters(min_steps=3)
    with pytest.raises(ValueError, match=r"config keys must be data\.filters\.idle_below, .*got unknown \['data\.filters\.idle'\]"):
        read({"idle": 1})
