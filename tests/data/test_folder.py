"""features.json and dataset_info.json as TFDS writes them; every way a folder can be wrong has its own message."""

import json
import sys

import pytest
import toy_rlds
from etils import epath

from ebt_jax.data.folder import find_folder, read_folder


def test_features_are_found_by_their_path_in_the_records(make_folder):
    steps = {
        **toy_rlds.STEPS,
        "scores": {"sequence": {"feature": {"tensor": {"shape": {}, "dtype": "float32"}}, "length": "-1"}},
        "clip/pose": {"tensor": {"shape": {"dimensions": ["3", "-1"]}, "dtype": "float32", "encoding": "zlib"}},
        "kind": {"classLabel": {"numClasses": "4"}},
    }
    folder = read_folder(epath.Path(make_folder("toy", steps, {"train": toy_rlds.shards(), "val": [[]]})))
    assert (folder.name, folder.version, folder.file_format) == ("toy", "1.0.0", "tfrecord")
    assert folder.steps["observation/image"].kind == "image"
    assert folder.steps["observation/image"].shape == (8, 8, 3)
    assert folder.steps["observation/state"].dtype == "float64"
    assert folder.steps["clip/pose"].shape == (3, None)
    assert folder.steps["clip/pose"].encoding == "zlib"
    assert folder.steps["scores"].ragged
    assert not folder.steps["action"].ragged
    assert folder.steps["language_instruction"].kind == "text"
    assert folder.steps["kind"].shape == ()
    assert [(s.path.name, s.num_records) for s in folder.splits["train"]] == [
        ("toy-train.tfrecord-00000-of-00002", 5),
        ("toy-train.tfrecord-00001-of-00002", 3),
    ]
    assert [s.num_records for s in folder.splits["val"]] == [0]


def test_the_newest_version_is_found_from_any_level(make_folder, tmp_path):
    for version in ("0.9.0", "0.10.0"):
        path = make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards()}, version=version)
    for data_dir in (tmp_path / "data", tmp_path / "data" / "toy", path):
        assert find_folder(str(data_dir), "toy").version == "0.10.0"


def test_the_home_folder_may_be_a_tilde(make_folder, tmp_path, monkeypatch):
    make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards()})
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_folder("~/data", "toy").name == "toy"


def test_a_dataset_is_called_what_its_folders_are_called(make_folder, tmp_path, monkeypatch):
    """Whatever name and version it was written with: its files have those."""
    path = make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards()}, version="0.0.1")
    mine = path.parent.rename(tmp_path / "data" / "mine")
    (mine / "0.0.1").rename(mine / "1.0.1")
    monkeypatch.chdir(mine)
    for data_dir in (tmp_path / "data", mine, mine / "1.0.1", ".", "1.0.1"):
        folder = find_folder(str(data_dir), "mine")
        assert (folder.name, folder.version, folder.stem) == ("mine", "1.0.1", "toy")
        assert [shard.path.name for shard in folder.splits["train"]] == [f"toy-train.tfrecord-0000{i}-of-00002" for i in range(2)]
        assert all(shard.path.exists() for shard in folder.splits["train"])
    assert find_folder(str(mine), "toy").name == "toy"  # asked for by the name inside: there is no other it could be
    with pytest.raises(FileNotFoundError, match="'toy' must lie at"):
        find_folder(str(tmp_path / "data"), "toy")


def test_a_missing_dataset_says_what_is_there(make_folder, tmp_path):
    make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards()})
    with pytest.raises(FileNotFoundError, match=r"'bridge' must lie at .*data/bridge/VERSION.*\['toy'\].*Point data_dir"):
        find_folder(str(tmp_path / "data"), "bridge")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_folder(str(tmp_path / "nowhere"), "bridge")


def test_a_bucket_that_nothing_here_reads_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ImportError, match=r"gs:// needs a package .* gcsfs .* pip install 'ebt_jax\[gcs\]'\."):
        find_folder("gs://bucket/oxe", "toy")


def test_an_incomplete_folder_is_named(make_folder):
    path = make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards()})
    (path / "dataset_info.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold dataset_info\.json, got none"):
        read_folder(epath.Path(path))
    (path / "features.json").write_text('{"featuresDict":')
    with pytest.raises(ValueError, match=r"features\.json must be JSON"):
        read_folder(epath.Path(path))


def test_a_dataset_without_steps_is_refused(make_folder):
    path = make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards()})
    (path / "features.json").write_text(json.dumps({"featuresDict": {"features": {"label": {"text": {}}}}}))
    with pytest.raises(ValueError, match=r"'steps' feature \(RLDS\), got \['label'\]"):
        read_folder(epath.Path(path))


def test_other_formats_are_refused(make_folder):
    path = make_folder("toy", toy_rlds.STEPS, {"train": [[]]}, file_format="array_record")
    info = json.loads((path / "dataset_info.json").read_text())
    (path / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "riegeli"}))
    with pytest.raises(ValueError, match=r"one of \('tfrecord', 'array_record'\), got 'riegeli'"):
        read_folder(epath.Path(path))


def test_a_tree_that_is_no_tfds_is_refused(make_folder):
    path = make_folder("toy", toy_rlds.STEPS, {"train": [[]]})
    (path / "dataset_info.json").write_text(json.dumps({"name": "toy"}))
    with pytest.raises(ValueError, match="as TFDS writes them"):
        read_folder(epath.Path(path))
