"""ArrayRecord shards hold the same records; a conversion that was killed is no dataset yet, and goes on where it stood."""

import json
import resource

import numpy as np
import pytest
import toy_rlds
from etils import epath

from ebt_jax.data import array_record, records
from ebt_jax.data.array_record import to_array_record
from ebt_jax.data.folder import find_folder, read_folder
from ebt_jax.data.index import open_index
from ebt_jax.data.oxe import ENTRIES
from ebt_jax.data.standardize import Entry


@pytest.fixture
def folder(make_folder):
    splits = {"train": toy_rlds.shards(), "val": [[toy_rlds.make_episode(9, 3)]]}
    return read_folder(epath.Path(make_folder("toy", toy_rlds.STEPS, splits, toy_rlds.SPEC)))


def _records(folder, split):
    return [record for shard in folder.splits[split] for _, record in records.scan(shard, folder.file_format)]


def test_the_records_are_the_same_and_the_index_agrees(folder, tmp_path):
    rewritten = read_folder(epath.Path(to_array_record(folder, tmp_path / "out")))
    assert rewritten.file_format == "array_record"
    assert rewritten.steps == folder.steps
    for split in ("train", "val"):
        assert _records(rewritten, split) == _records(folder, split)
    before, after = (open_index(source, "train", Entry(toy_rlds.SPEC)) for source in (folder, rewritten))
    assert (before.columns["action"] == after.columns["action"]).all()


def test_what_is_complete_is_left_and_what_is_anothers_is_refused(folder, tmp_path, monkeypatch):
    target = to_array_record(folder, tmp_path)
    monkeypatch.setattr(array_record, "rewrite", lambda task: pytest.fail("rewritten"))
    assert to_array_record(folder, tmp_path) == target
    info = target / "dataset_info.json"
    info.write_text(info.read_text().replace('"numShards"', '"shards"').replace('"shardLengths"', '"lengths"'))
    with pytest.raises(FileExistsError, match=f"without another dataset of this name and version, got {target}"):
        to_array_record(folder, tmp_path)


def test_a_conversion_that_stopped_goes_on(folder, tmp_path, monkeypatch):
    done, rewrite = [], array_record.rewrite

    def stop(task):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(task)
        rewrite(task)

    monkeypatch.setattr(array_record, "rewrite", stop)
    with pytest.raises(KeyboardInterrupt):
        to_array_record(folder, tmp_path / "out")
    target = tmp_path / "out" / "toy" / "1.0.0"
    assert len(list(target.glob("*.array_record*"))) == 2
    assert not (target / "dataset_info.json").exists()
    monkeypatch.setattr(array_record, "rewrite", rewrite)
    written = {path: path.stat().st_mtime_ns for path in target.glob("*.array_record*")}
    rewritten = read_folder(epath.Path(to_array_record(folder, tmp_path / "out")))
    assert _records(rewritten, "train") == _records(folder, "train")
    assert written.items() <= {path: path.stat().st_mtime_ns for path in target.glob("*.array_record*")}.items()


def test_a_description_that_no_disk_has_room_for_is_not_there(folder, tmp_path):
    """dataset_info.json says that the conversion is complete: a beginning of it must not."""
    info, limits = folder.path / "dataset_info.json", resource.getrlimit(resource.RLIMIT_FSIZE)
    info.write_text(json.dumps({**json.loads(info.read_text()), "citation": "x" * 100_000}))
    target = to_array_record(folder, tmp_path)
    (target / "dataset_info.json").unlink()
    before = sorted(target.iterdir())
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        with pytest.raises(OSError, match="too large"):
            to_array_record(folder, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(target.iterdir()) == before
    assert to_array_record(folder, tmp_path) == target
    assert find_folder(str(tmp_path), "toy").num_records("train") == 8


def test_a_bucket_to_write_to_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="array_record must be a folder on a disk, got 'gs://mine/out'. Mount the bucket"):
        to_array_record(folder, "gs://mine/out")
    assert not (tmp_path / "gs:").exists()


def test_a_damaged_shard_leaves_no_file(folder, tmp_path):
    shard = folder.splits["train"][0].path
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(records.CorruptRecordError, match="truncated"):
        to_array_record(folder, tmp_path / "out")
    assert list((tmp_path / "out" / "toy" / "1.0.0").iterdir()) == []


@pytest.mark.slow
def test_tensorflow_datasets_opens_it(test_data, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("tensorflow")
    folder = find_folder(str(test_data / "bridge"), "bridge_dataset")
    index = open_index(folder, "train", ENTRIES["bridge_dataset"], str(tmp_path))
    source = tfds.builder_from_directory(to_array_record(folder, tmp_path / "out")).as_data_source("train")
    assert len(source) == 25
    steps = list(source[7]["steps"])
    rows = slice(int(index.episodes["start"][7]), int(index.episodes["start"][7]) + len(steps))
    np.testing.assert_array_equal(np.stack([step["action"] for step in steps])[:, :6], index.columns["action"][rows, :6])
