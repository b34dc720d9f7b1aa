"""Batch n is a function of (seed, n): after a restart, on any number of hosts, with any number of threads."""

import itertools
import os
import subprocess
import sys
import threading

import chex
import fake_gcs
import jax
import numpy as np
import pytest
import toy_rlds
from test_mixture import _second

from ebt_jax.data import loader, records
from ebt_jax.data.loader import make_loader
from ebt_jax.data.mixture import open_mixture
from ebt_jax.normalize import unnormalize
from ebt_jax.text import tokenize


def _take(mixture, count, batch_size=6, seed=0, split="train", **kwargs):
    return list(itertools.islice(make_loader(mixture, split, batch_size, seed, **kwargs), count))


def _identities(mixture, batches):
    """(episode, step) of every row, read back from its first action."""
    actions = np.concatenate([unnormalize(batch.actions[:, 0], mixture.action_normalizer) for batch in batches])
    return [tuple(row) for row in np.rint(actions[:, :2]).astype(int).tolist()]


@pytest.fixture(params=[1, 2])
def mixture(request, toy, make_folder, settings):
    """The toy alone, and in a mixture."""
    if request.param == 1:
        return open_mixture(settings())
    _second(make_folder)
    return open_mixture(settings(mixture={"toy": 2.0, "second": 1.0}))


def test_a_restart_at_step_n_continues_with_batch_n(mixture):
    straight = _take(mixture, 9)
    resumed = _take(mixture, 4, start_step=5)
    chex.assert_trees_all_equal(resumed, straight[5:])


def test_threads_do_not_change_the_order(mixture):
    chex.assert_trees_all_equal(_take(mixture, 6, num_threads=0), _take(mixture, 6, num_threads=4, prefetch=4))


@pytest.mark.parametrize("together", [1, 4])
def test_a_mixture_is_one_sequence_for_any_number_of_hosts_also_after_a_restart(make_folder, settings, together):
    make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards()}, toy_rlds.SPEC)
    _second(make_folder)
    mixture = open_mixture(settings(mixture={"toy": 2.0, "second": 1.0}, windows_per_visit=together))
    whole = _take(mixture, 6, batch_size=16)
    for hosts in (1, 2, 4):
        parts = [_take(mixture, 4, batch_size=16, start_step=2, process_index=i, process_count=hosts) for i in range(hosts)]
        joined = [jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches) for batches in zip(*parts, strict=True)]
        chex.assert_trees_all_equal(joined, whole[2:])


@pytest.mark.parametrize(("hosts", "split"), [(2, "train"), (4, "train"), (3, "validation")])
def test_hosts_share_the_batch_of_one_host(toy, settings, hosts, split):
    mixture = open_mixture(settings(validation_folds=2))
    whole = _take(mixture, 3, batch_size=12, split=split)
    parts = [_take(mixture, 3, batch_size=12, split=split, process_index=i, process_count=hosts) for i in range(hosts)]
    joined = [jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches) for batches in zip(*parts, strict=True)]
    chex.assert_trees_all_equal(joined, whole)


def test_threads_are_those_of_the_process_not_of_the_machine(toy, settings, monkeypatch):
    """A task of Slurm's, or a container, owns a few cores of many: three read at the same time, and never a fourth."""
    threads, numbers, three, draw = set(), itertools.count(), threading.Barrier(3, timeout=60), loader.draw

    def drawn(*arguments):
        threads.add(threading.get_ident())
        if next(numbers) < 3:
            three.wait()
        return draw(*arguments)

    mixture = open_mixture(settings())
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {3, 5, 8})
    monkeypatch.setattr("os.cpu_count", lambda: 200)
    monkeypatch.setattr(loader, "draw", drawn)
    assert len(_take(mixture, 12)) == 12
    assert len(threads) == 3


def test_an_epoch_has_every_window_once(toy, settings):
    mixture = open_mixture(settings())
    everything = sorted((number, step) for number, length in enumerate(toy_rlds.LENGTHS) for step in range(length))
    seen = _identities(mixture, _take(mixture, 2 * len(everything), batch_size=1))
    first, second = seen[: len(everything)], seen[len(everything) :]
    assert sorted(first) == sorted(second) == everything
    assert first != second
    assert _identities(mixture, _take(mixture, 6)) == seen[:36]  # the order does not depend on the batch size
    assert _identities(mixture, _take(mixture, 6, seed=1)) != seen[:36]


def test_a_mixture_draws_by_weight_and_normalises_each_by_its_own(toy, make_folder, settings):
    _second(make_folder)
    mixture = open_mixture(settings(mixture={"toy": 1.0, "second": 3.0}))
    batches = _take(mixture, 30, batch_size=20)
    actions = np.concatenate([batch.actions[:, 0] for batch in batches])
    words = np.concatenate([batch.observation.language for batch in batches])
    second = (words == tokenize("second", mixture.specs.observation.language)[0]).all(axis=1)
    assert abs(second.mean() - 0.75) < 0.08
    for mine in (second, ~second):
        np.testing.assert_allclose([actions[mine].min(0), actions[mine].max(0)], [[-1] * 3, [1] * 3], atol=1e-6)


def test_validation_is_one_pass_filled_up_with_masked_rows(toy, settings):
    mixture = open_mixture(settings(validation_folds=2))
    split = mixture.split("validation")[0]
    batches = list(make_loader(mixture, "validation", 4, seed=0))
    assert len(batches) == -(-len(split) // 4)
    assert all(batch.actions.shape[0] == 4 for batch in batches)
    real = np.concatenate([batch.action_mask.any(axis=(1, 2)) for batch in batches])
    assert real.tolist() == [True] * len(split) + [False] * (len(real) - len(split))
    numbers = [int(split.index.columns["action"][episode["start"], 0]) for episode in split.episodes]
    held = sorted((number, step) for number in numbers for step in range(toy_rlds.LENGTHS[number]))
    assert sorted(_identities(mixture, batches)[: len(split)]) == held
    chex.assert_trees_all_equal(list(make_loader(mixture, "validation", 4, seed=0)), batches)
    trained = set(_identities(mixture, _take(mixture, 60)))
    assert not trained & set(held)


def test_batches_are_numpy_of_the_promised_dtypes(mixture):
    batch = _take(mixture, 1)[0]
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(batch))
    assert batch.observation.images["primary"].dtype == np.uint8
    assert batch.actions.dtype == batch.observation.proprio.dtype == np.float32
    assert batch.observation.language.dtype == np.int32
    example = mixture.example_batch(6)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), example) == jax.tree.map(lambda x: (x.shape, x.dtype), batch)


def test_a_state_only_loader_reads_no_record(toy, settings, monkeypatch):
    mixture = open_mixture(settings(cameras=()))
    monkeypatch.setattr(records, "read_many", lambda *_: pytest.fail("a record was read"))
    assert _take(mixture, 2)[0].observation.images == {}


def test_an_epoch_read_several_windows_a_visit_has_each_at_most_once(toy, settings):
    mixture = open_mixture(settings(windows_per_visit=4))
    epoch = sum(toy_rlds.LENGTHS) // 4 * 4
    seen = _identities(mixture, _take(mixture, 2 * epoch, batch_size=1))
    assert len(set(seen[:epoch])) == len(set(seen[epoch:])) == epoch
    assert len(set(seen)) == sum(toy_rlds.LENGTHS)
    steps = [seen[i : i + 4] for i in range(0, epoch, 4)]
    assert np.mean([len({number for number, _ in group}) for group in steps]) < 2.2  # of one episode, or of two that meet


def test_a_bucket_gives_the_batches_that_a_disk_gives(make_folder, settings, bucket):
    make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards()}, toy_rlds.SPEC)
    local = _take(open_mixture(settings(windows_per_visit=4)), 3)
    mixture = open_mixture(settings(windows_per_visit=4, data_dir="gs://data"))
    del bucket.reads[:]
    chex.assert_trees_all_equal(_take(mixture, 3, num_threads=0), local)
    assert {path.rsplit("-", 3)[0] for path, _, _ in bucket.reads} == {"gs://data/toy/1.0.0/toy-train.tfrecord"}
    assert len(bucket.reads) < 3 * 6  # fewer requests than windows


def test_array_records_of_a_bucket_are_read_by_ranges(make_folder, settings, bucket, tmp_path, monkeypatch):
    folder = make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards()}, toy_rlds.SPEC, "array_record")
    local = _take(open_mixture(settings()), 3)
    with fake_gcs.serve(tmp_path) as (address, asked):
        monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", address)
        mixture = open_mixture(settings(data_dir="gs://data"))
        del asked[:]
        chex.assert_trees_all_equal(_take(mixture, 3, num_threads=0), local)
        assert {name.rsplit("-", 3)[0] for name, _ in asked} == {"toy/1.0.0/toy-train.array_record"}
        for shard in folder.glob("*train*"):
            shard.unlink()
        with pytest.raises(FileNotFoundError, match="must stay where it was indexed"):
            _take(mixture, 1, num_threads=0)
    with pytest.raises(ValueError, match="on a disk, a bucket mounted as one, or in gs://, got s3://data"):
        records.read("s3://data/toy.array_record", "array_record", 0, [(0, 1, 0)])


def test_errors_of_reading_reach_the_caller(make_folder, settings):
    path = make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards()}, toy_rlds.SPEC)
    mixture = open_mixture(settings())
    for shard in path.glob("*train*"):
        data = bytearray(shard.read_bytes())
        data[len(data) // 3 : 2 * len(data) // 3] = bytes(len(data) // 3)
        shard.write_bytes(data)
    with pytest.raises(records.CorruptRecordError, match="toy-train"):
        _take(mixture, 5)


@pytest.mark.parametrize("arguments", [{"batch_size": 5, "process_count": 2}, {"batch_size": 0}, {"process_index": 1}])
def test_batches_must_divide_among_hosts(toy, settings, arguments):
    with pytest.raises(ValueError, match="batch_size must be a positive multiple of process_count"):
        make_loader(open_mixture(settings()), "train", **{"batch_size": 4, "seed": 0, **arguments})


def test_reading_never_imports_tensorflow(make_folder, tmp_path):
    make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards()}, toy_rlds.SPEC)
    program = f"""
import sys
from ebt_jax.data.loader import make_loader
from ebt_jax.data.mixture import open_mixture
from ebt_jax.data.settings import DataSettings
mixture = open_mixture(DataSettings({str(tmp_path / "data")!r}, "toy", cameras=("primary",), validation_fraction=0.0))
batches = make_loader(mixture, "train", 4, seed=0)
print(next(batches).actions.shape, next(batches).actions.shape)
loaded = [name for name in ("tensorflow", "tensorflow_datasets", "flax", "cv2") if name in sys.modules]
assert not loaded, loaded
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "(4, 16, 3) (4, 16, 3)"
