"""An index holds what the records hold, is built once, and refuses records that cannot be used, naming them."""

import concurrent.futures
import dataclasses
import json
import os
import resource
import stat
import subprocess
import sys
import time
import uuid
import zlib

import numpy as np
import pytest
import toy_rlds
from etils import epath

from ebt_jax.data import build, jobs, records
from ebt_jax.data.folder import find_folder, read_folder
from ebt_jax.data.index import keep, open_index
from ebt_jax.data.oxe import describe
from ebt_jax.data.standardize import Entry, join

ENTRY = Entry(toy_rlds.SPEC)


def _open(path, entry=ENTRY, **kwargs):
    return open_index(read_folder(epath.Path(path)), "train", entry, **kwargs)


def test_columns_are_the_episodes_in_order(toy):
    index = _open(toy)
    assert index.episodes["length"].tolist() == list(toy_rlds.LENGTHS)
    assert index.episodes["shard"].tolist() == [0] * 5 + [1] * 3
    episodes = [toy_rlds.make_episode(number, length) for number, length in enumerate(toy_rlds.LENGTHS)]
    np.testing.assert_array_equal(index.columns["action"], np.concatenate([episode["action"] for episode in episodes]))
    np.testing.assert_array_equal(index.columns["proprio"], np.concatenate([episode["observation/state"] for episode in episodes]))
    instructions = [index.texts[i] for i in index.columns["text"]]
    assert instructions == [text.decode() for episode in episodes for text in episode["language_instruction"]]
    images = [image for episode in episodes for image in episode["observation/image"]]
    for row in (0, 4, 13, 36):
        number = np.searchsorted(index.episodes["start"], row, side="right") - 1
        episode = index.episodes[number]
        part = [tuple(index.columns["primary"][row].tolist())]
        assert records.read(index.files[episode["shard"]], index.file_format, int(episode["position"]), part) == [images[row]]


def test_an_index_is_built_once_and_again_when_files_spec_or_conversion_change(toy, monkeypatch):
    first = _open(toy)

    def refuse(*args):
        raise AssertionError("built again")

    with monkeypatch.context() as patch:
        patch.setattr("ebt_jax.data.build.scan_shard", refuse)
        assert _open(toy).cache == first.cache
        for entry in (
            Entry(dataclasses.replace(toy_rlds.SPEC, cameras={})),
            Entry(toy_rlds.SPEC, lambda spec, columns: join(spec, columns)),
        ):
            with pytest.raises(AssertionError, match="built again"):
                _open(toy, entry)
        shard = next(toy.glob("*train*"))
        os.utime(shard, (1, 1))
        with pytest.raises(AssertionError, match="built again"):
            _open(toy)


def test_what_cannot_be_kept_whole_is_not_kept(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        keep(tmp_path / "statistics.json", "x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
    keep(tmp_path / "statistics.json", "x" * 1000)
    assert (tmp_path / "statistics.json").read_text() == "x" * 1000


def test_processes_that_build_at_once_agree(toy, cache):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: _open(toy), range(4)))
    assert len({index.cache for index in found}) == 1
    assert list(cache.iterdir()) == [found[0].cache]
    for index in found:
        np.testing.assert_array_equal(index.columns["action"], found[0].columns["action"])


def test_the_cache_lies_beside_the_data_or_where_told(toy, cache, tmp_path, monkeypatch):
    assert _open(toy).cache.parent == cache
    assert _open(toy, cache_dir=str(tmp_path / "chosen")).cache.parent == tmp_path / "chosen"
    monkeypatch.delenv("EBT_JAX_CACHE")
    assert _open(toy).cache.parent == toy / ".ebt_index"


def test_a_cache_in_a_bucket_is_refused(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    with pytest.raises(ValueError, match="cache_dir must be a folder on a disk, got 'gs://mine/cache'. Mount the bucket"):
        _open(toy, cache_dir="gs://mine/cache")
    monkeypatch.setenv("EBT_JAX_CACHE", "s3://mine/cache")
    with pytest.raises(ValueError, match="EBT_JAX_CACHE must be a folder on a disk, got 's3://mine/cache'"):
        _open(toy)
    assert set(tmp_path.iterdir()) == before


def test_read_only_data_are_indexed_in_the_home_folder(toy, tmp_path, monkeypatch):
    monkeypatch.delenv("EBT_JAX_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (toy / ".ebt_index").write_text("a file where the folder would be: not writable even for root")
    assert _open(toy).cache.parent == tmp_path / "home" / ".cache" / "ebt_jax"
    (tmp_path / "home" / ".cache").rename(tmp_path / "elsewhere")
    (tmp_path / "home" / ".cache").write_text("")
    with pytest.raises(PermissionError, match="Set \\$EBT_JAX_CACHE"):
        _open(toy)


def test_a_build_that_fails_goes_on_where_it_stood(toy, cache, monkeypatch):
    shard = sorted(toy.glob("*train*"))[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    monkeypatch.setattr("ebt_jax.data.build.uuid.uuid4", lambda: uuid.UUID(int=0))  # begin with the first shard
    with pytest.raises(records.CorruptRecordError, match=shard.name):
        _open(toy)
    (parts,) = cache.iterdir()  # what was done, and nothing that looks like an index
    assert [part.name.split(".npz")[0].rsplit("-", 1)[0] for part in parts.iterdir()] == [sorted(toy.glob("*train*"))[0].name]
    shard.write_bytes(whole)
    scanned, scan = [], build.scan_shard
    monkeypatch.setattr("ebt_jax.data.build.scan_shard", lambda folder, shard, *rest: scanned.append(shard) or scan(folder, shard, *rest))
    index = _open(toy)
    assert [done.path.name for done in scanned] == [shard.name]
    assert index.episodes["length"].tolist() == list(toy_rlds.LENGTHS)
    assert list(cache.iterdir()) == [index.cache]


def test_processes_build_what_one_builds(make_folder, tmp_path):
    toy = make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards()}, toy_rlds.SPEC)
    alone = _open(toy)
    beside = _open(toy, cache_dir=str(tmp_path / "other"), runner=jobs.in_processes(2))
    assert beside.cache.name == alone.cache.name
    for name in ("episodes", *alone.columns, "index.json"):
        assert (beside.cache / name).read_bytes() == (alone.cache / name).read_bytes()


def test_an_index_is_tiny_beside_its_data(toy):
    index = _open(toy)
    rows = len(index.columns["action"])
    assert sum(column.nbytes for column in index.columns.values()) / rows == 3 * 4 + 2 * 4 + 4 + 16


def _skipping(path, entry=ENTRY):
    return open_index(read_folder(epath.Path(path)), "train", entry, on_bad="skip")


def test_what_cannot_be_used_is_left_out_and_counted_where_told(make_folder, caplog):
    episodes = [toy_rlds.make_episode(number, 4) for number in range(5)]
    episodes[1]["action"][2, 1] = np.nan
    episodes[3].pop("action")
    path = make_folder("toy", toy_rlds.STEPS, {"train": [episodes, [toy_rlds.make_episode(5, 2)]]}, toy_rlds.SPEC)
    sorted(path.glob("*train*"))[1].unlink()
    index = _skipping(path)
    assert index.columns["action"][:, 0].tolist() == [0] * 4 + [2] * 4 + [4] * 4
    assert index.faults == {"unusable episodes": 2, "missing shards": 1, "lost records": 1}
    assert "record 1: action must be finite" in caplog.text
    with pytest.raises(FileNotFoundError, match="no file at"):
        _open(path)
    assert _skipping(path).cache == index.cache


def test_an_index_with_gaps_is_refused_where_faults_are_to_be_raised(make_folder):
    def change(episode):
        episode["action"][0, 0] = np.inf

    path = _broken(make_folder, change)
    assert _skipping(path).faults == {"unusable episodes": 1}
    with pytest.raises(
        ValueError, match=r"(?s)must be whole, got \{'unusable episodes': 1\}.*record 2: action must be finite.*on_bad=\"skip\""
    ):
        _open(path)


def test_a_remote_folder_is_indexed_and_read_by_ranges(make_folder, tmp_path, bucket):
    make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards()}, toy_rlds.SPEC)
    folder = find_folder("gs://data", "toy")
    assert describe(folder).spec == toy_rlds.SPEC
    index = open_index(folder, "train", describe(folder))
    assert index.files[0] == "gs://data/toy/1.0.0/toy-train.tfrecord-00000-of-00002"
    assert index.episodes["length"].tolist() == list(toy_rlds.LENGTHS)
    del bucket.reads[:]
    part = tuple(index.columns["primary"][3].tolist())
    (image,) = records.read(index.files[0], "tfrecord", int(index.episodes["position"][0]), [part])
    assert image == toy_rlds.make_episode(0, 5)["observation/image"][3]
    assert [stop - start for _, start, stop in bucket.reads] == [part[1]]


@pytest.mark.slow
def test_a_killed_build_leaves_nothing_wrong(make_folder, cache):
    shards = [[toy_rlds.make_episode(number, 20)] for number in range(30)]
    path = make_folder("toy", toy_rlds.STEPS, {"train": shards}, toy_rlds.SPEC)
    program = f"""
import itertools, time
from etils import epath
from ebt_jax.data import build
from ebt_jax.data.folder import read_folder
from ebt_jax.data.index import open_index
from ebt_jax.data.oxe import describe
scan = build.scan_shard
count = itertools.count()
build.scan_shard = lambda *rest: (time.sleep(0.1 if next(count) < 5 else 1e6), scan(*rest))[1]
folder = read_folder(epath.Path({str(path)!r}))
print("ready", flush=True)
open_index(folder, "train", describe(folder))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    builders = [subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE) for _ in range(2)]
    while len(list(cache.glob(".parts-*/toy*"))) < 5:  # each does five and waits to be killed
        assert all(builder.poll() is None for builder in builders)
        time.sleep(0.02)
    for builder in builders:
        builder.kill()
        builder.communicate()
    assert not [entry for entry in cache.iterdir() if not entry.name.startswith(".")]
    index = _open(path)
    assert index.columns["action"][:, 0].tolist() == [number for number in range(30) for _ in range(20)]


@pytest.mark.slow
def test_two_processes_share_the_work_of_one_index(make_folder, cache):
    shards = [[toy_rlds.make_episode(number, 10)] for number in range(40)]
    path = make_folder("toy", toy_rlds.STEPS, {"train": shards}, toy_rlds.SPEC)
    program = f"""
import random, sys, time, uuid
from etils import epath
from ebt_jax.data import build
from ebt_jax.data.folder import read_folder
from ebt_jax.data.index import open_index
from ebt_jax.data.oxe import describe
count, scan = 0, build.scan_shard
build.uuid.uuid4 = lambda: uuid.UUID(int=40 * random.getrandbits(64) + int(sys.argv[1]))  # the first shard that it does
def counted(*rest):
    global count
    count += 1
    time.sleep(0.05)
    return scan(*rest)
build.scan_shard = counted
folder = read_folder(epath.Path({str(path)!r}))
print("ready", flush=True)
input()
index = open_index(folder, "train", describe(folder))
print(count, index.cache.name, len(index.episodes))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    builders = [subprocess.Popen([sys.executable, "-c", program, first], env=environment, **pipes) for first in ("0", "20")]
    assert [builder.stdout.readline() for builder in builders] == ["ready\n"] * 2
    for builder in builders:
        builder.stdin.write("\n")
        builder.stdin.flush()
    answers = [builder.communicate(timeout=300)[0].split() for builder in builders]
    assert answers[0][1:] == answers[1][1:]
    assert answers[0][2] == "40"
    counts = [int(answer[0]) for answer in answers]
    assert sum(counts) >= 40
    assert max(counts) < 40  # neither did all
    assert sum(counts) < 60  # nor what the other had done
    assert [entry.name for entry in cache.iterdir()] == [answers[0][1]]


def _broken(make_folder, change, spec=toy_rlds.SPEC, steps=toy_rlds.STEPS):
    episodes = [toy_rlds.make_episode(number, 4) for number in range(3)]
    change(episodes[2])
    return make_folder("toy", steps, {"train": [episodes]}, spec)


def _set(key, value):
    return lambda episode: episode.__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("action", np.full((4, 3), np.nan, np.float32)), r"action must be finite, got nan at step 0 in 'episode'"),
        (
            _set("observation/state", np.float32([[0, 0], [0, 0], [0, np.inf], [0, 0]])),
            r"proprio must be finite, got inf at step 2 in 'step'",
        ),
        (lambda episode: episode.pop("action"), r"feature 'action' must be in the record"),
        (_set("observation/image", []), r"'primary' must have a value for each of 4 steps, got 0"),
        (_set("action", np.zeros((4, 2), np.float32)), r"tensor of shape \(3,\) as features\.json says, got 8 numbers in all"),
        (_set("action", np.zeros((3, 3), np.float32)), r"'observation/state' must have a value for each of 3 steps, got 4"),
    ],
)
def test_unusable_values_name_file_and_record(make_folder, change, message):
    with pytest.raises(ValueError, match=rf"toy-train\.tfrecord-00000-of-00001: record 2: .*{message}"):
        _open(_broken(make_folder, change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action_keys": ("actions",)}, r"tensor features of dataset 'toy' must be among \['action', .*\], got \['actions'\]"),
        ({"cameras": {"wrist": "observation/state"}}, r"image features .* among \['observation/image'\], got \['observation/state'\]"),
        ({"language_key": "instruction"}, r"text features .* among \['language_instruction'\]"),
        ({"embedding_key": "action", "embedding_size": 5}, r"embedding 'action' .* must be 5 plain floats"),
    ],
)
def test_keys_that_do_not_exist_are_listed(toy, change, message):
    with pytest.raises(ValueError, match=message):
        _open(toy, Entry(dataclasses.replace(toy_rlds.SPEC, **change)))


def test_a_list_inside_a_step_cannot_be_an_action(make_folder):
    action = {"sequence": {"feature": {"tensor": {"shape": {}, "dtype": "float32"}}, "length": "-1"}}
    path = make_folder("toy", {**toy_rlds.STEPS, "action": action}, {"train": toy_rlds.shards()}, toy_rlds.SPEC)
    with pytest.raises(ValueError, match=r"tensor features .* got \['action'\]"):
        _open(path)


def test_missing_and_empty_splits(make_folder):
    path = make_folder("toy", toy_rlds.STEPS, {"train": [[], []], "all": [[toy_rlds.make_episode(0, 0)]]}, toy_rlds.SPEC)
    folder = read_folder(epath.Path(path))
    with pytest.raises(ValueError, match=r"split 'train' of .* must hold at least one episode, got none"):
        open_index(folder, "train", ENTRY)
    with pytest.raises(ValueError, match=r"must be one of \['all', 'train'\], got 'val'"):
        open_index(folder, "val", ENTRY)
    with pytest.raises(ValueError, match="must hold at least one step"):
        open_index(folder, "all", ENTRY)


def test_a_missing_shard_is_named(toy):
    shard = sorted(toy.glob("*train*"))[1]
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=f"no file at .*{shard.name}"):
        _open(toy)


def test_empty_shards_and_episodes_of_no_step_are_fine(make_folder):
    shards = [[toy_rlds.make_episode(0, 2)], [], [toy_rlds.make_episode(1, 0), toy_rlds.make_episode(2, 3)]]
    index = _open(make_folder("toy", toy_rlds.STEPS, {"train": shards}, toy_rlds.SPEC))
    assert index.episodes[["shard", "start", "length"]].tolist() == [(0, 0, 2), (2, 2, 0), (2, 2, 3)]
    assert index.columns["action"][:, 0].tolist() == [0, 0, 2, 2, 2]


def test_tensors_stored_as_bytes(make_folder):
    values = np.arange(12, dtype=np.float64).reshape(4, 3) / 11
    for encoding, pack in (("bytes", bytes), ("zlib", zlib.compress)):
        node = {"tensor": {"shape": {"dimensions": ["3"]}, "dtype": "float64", "encoding": encoding}}
        episode = {**toy_rlds.make_episode(0, 4), "action": [pack(row.tobytes()) for row in values]}
        spec = dataclasses.replace(toy_rlds.SPEC, name=encoding)
        index = _open(make_folder(encoding, {**toy_rlds.STEPS, "action": node}, {"train": [[episode]]}, spec), Entry(spec))
        np.testing.assert_array_equal(index.columns["action"], values.astype(np.float32))
    damaged = {**episode, "action": [*episode["action"][:3], b"no zlib"]}
    path = make_folder("damaged", {**toy_rlds.STEPS, "action": node}, {"train": [[episode, damaged]]}, spec)
    with pytest.raises(ValueError, match="record 1: a tensor of encoding 'zlib' must be whole, got a fault"):
        _open(path, Entry(spec))
    assert _skipping(path, Entry(spec)).faults == {"unusable episodes": 1}


def test_a_text_says_success_failure_or_nothing(make_folder):
    said = {"a/success/1.mp4": 1, "a/failure/1.mp4": 0, "Success": 1, "unsuccessful": 0, "task_success": 1, " ": -1, "": -1}
    made = [{**toy_rlds.make_episode(number, 1), "/outcome": [text.encode()]} for number, text in enumerate(said)]
    spec = dataclasses.replace(toy_rlds.SPEC, success_key="outcome")
    index = _open(make_folder("toy", toy_rlds.STEPS, {"train": [made]}, spec, beside={"outcome": {"text": {}}}), Entry(spec))
    assert dict(zip(said, index.episodes["success"].tolist(), strict=True)) == said


def test_cached_columns_are_read_only_files(toy):
    index = _open(toy)
    with pytest.raises(ValueError, match="read-only"):
        index.columns["action"][0] = 0
    assert stat.S_ISREG((index.cache / "action").stat().st_mode)
    assert json.loads((index.cache / "index.json").read_text())["columns"]["action"] == [sum(toy_rlds.LENGTHS), 3]
