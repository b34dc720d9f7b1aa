"""Settings that make no sense are refused by name."""

import pytest

from ebt_jax.data.folder import find_folder
from ebt_jax.data.oxe import describe
from ebt_jax.data.settings import DataSettings, bundled_sample_dir


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_dir": ""}, "data_dir must name the folder"),
        ({"mixture": {}}, "mixture must name at least one dataset"),
        ({"mixture": {"a": 1.0, "b": 0.0}}, "weights of a mixture must be positive"),
        ({"mixture": "octo/soup"}, r"mixture must be a dataset, a JSON file or one of \['octo/bridge'.*got 'octo/soup'"),
        ({"mixture": "nowhere.json"}, "mixture must be a JSON file of names and weights, got nowhere.json"),
        ({"observation_horizon": 0}, "observation_horizon must be at least 1, got 0"),
        ({"action_horizon": 0}, "action_horizon must be at least 1"),
        ({"image_size": 0}, "image_size must be at least 1"),
        ({"cameras": ("front",)}, r"cameras must be among .*primary.* got \['front'\]"),
        ({"cameras": ("wrist", "wrist")}, "cameras must be distinct"),
        ({"validation_fraction": 1.0}, r"validation_fraction must be in \[0, 1\)"),
        ({"validation_folds": 1}, "validation_folds must be 0 or at least 2"),
        ({"validation_folds": 5, "validation_fold": 5}, r"validation_fold must be in \[0, 5\), got 5"),
    ],
)
def test_faults_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        DataSettings(**{"data_dir": "data", "mixture": "toy", **change})


@pytest.mark.parametrize("name", ["language", "normalization", "proprio_normalization", "weighting", "combine"])
def test_unknown_words_list_the_known_ones(name):
    settings = DataSettings("data", "toy")
    object.__setattr__(settings, name, "bounds")  # the type checker of the tests would refuse it before our own message
    with pytest.raises(ValueError, match=f"{name} must be one of .*, got 'bounds'"):
        settings.__post_init__()


def test_weights_sum_to_one():
    assert DataSettings("data", {"a": 1.0, "b": 3.0}).weights == {"a": 0.25, "b": 0.75}
    assert DataSettings("data", "a").weights == {"a": 1.0}


def test_a_mixture_has_a_published_name_or_a_file_of_its_own(tmp_path):
    assert DataSettings("data", "openvla/bridge_rt_1").weights == {"bridge_dataset": 0.5, "fractal20220817_data": 0.5}
    assert len(DataSettings("data", "octo/oxe_magic_soup").weights) == 25
    (tmp_path / "mine.json").write_text('{"a": 3, "b": 1.0}')
    assert DataSettings("data", str(tmp_path / "mine.json")).weights == {"a": 0.75, "b": 0.25}
    (tmp_path / "list.json").write_text('["a"]')
    with pytest.raises(ValueError, match="mixture must be JSON like"):
        DataSettings("data", str(tmp_path / "list.json"))


def test_the_sample_comes_with_the_package():
    folder = find_folder(bundled_sample_dir(), "metaworld_pick_place_v3")
    assert folder.num_records("train") == 100
    assert all(shard.path.exists() for shards in folder.splits.values() for shard in shards)
    assert describe(folder).spec.name == folder.name
