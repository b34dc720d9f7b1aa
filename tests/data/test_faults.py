"""A file that goes bad during a run is a named error, or a counted replacement that depends on the window alone."""

import json

import chex
import numpy as np
import pytest
import toy_rlds

from ebt_jax.data import records
from ebt_jax.data.batches import gather
from ebt_jax.data.faults import Faults
from ebt_jax.data.loader import make_loader
from ebt_jax.data.mixture import open_mixture


@pytest.fixture
def shards(make_folder):
    path = make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards()}, toy_rlds.SPEC)
    return sorted(path.glob("*train*"))


def _identities(mixture, batch):
    return np.rint(batch.actions[:, 0, 0] * mixture.action_normalizer.scale[0] + mixture.action_normalizer.shift[0]).astype(int)


def _vanish(shard):
    shard.unlink()
    records.forget()  # as where another process opens it, or a network file system lets go


def _flip(shard):
    data = bytearray(shard.read_bytes())
    at = data.index(b"\xff\xd8")  # in the first frame of the shard's first episode
    data[at + 40] ^= 1
    shard.write_bytes(data)


def _truncate(shard):
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (_vanish, FileNotFoundError, "00000-of-00002 must stay where it was indexed, got no such file"),
        (_flip, records.CorruptRecordError, "record at 12 has changed at byte"),
        (_truncate, records.CorruptRecordError, "has changed at byte .* since it was indexed"),
    ],
)
def test_a_fault_is_an_error_or_replaced_and_counted(shards, settings, fault, error, message):
    strict, lenient = open_mixture(settings()), open_mixture(settings(on_bad="skip"))
    before = [next(batches) for batches in [make_loader(lenient, "train", 32, seed=0, num_threads=0)] for _ in range(3)]
    fault(shards[0])
    with pytest.raises(error, match=message):
        list(zip(range(5), make_loader(strict, "train", 32, seed=0, num_threads=2, prefetch=4), strict=False))
    batches = make_loader(lenient, "train", 32, seed=0, num_threads=2, prefetch=4)
    after = [next(batches) for _ in range(3)]
    changed = [_identities(lenient, a) != _identities(lenient, b) for a, b in zip(before, after, strict=True)]
    assert 0 < sum(map(np.sum, changed)) <= lenient.faults.counts["replaced windows"]
    resumed = make_loader(lenient, "train", 32, seed=0, start_step=1, num_threads=0)
    chex.assert_trees_all_equal([next(resumed) for _ in range(2)], after[1:])


def test_a_dataset_that_is_gone_altogether_is_an_error_all_the_same(shards, settings):
    mixture = open_mixture(settings(on_bad="skip"))
    for shard in shards:
        _vanish(shard)
    with pytest.raises(FileNotFoundError, match="must stay where it was indexed"):
        next(make_loader(mixture, "train", 8, seed=0, num_threads=1, prefetch=1))


def test_an_image_that_is_none_is_named_or_replaced(make_folder, settings):
    made = [toy_rlds.make_episode(number, 4) for number in range(3)]
    made[1]["observation/image"][2] = b"no image at all"
    make_folder("toy", toy_rlds.STEPS, {"train": [made]}, toy_rlds.SPEC)
    mixture = open_mixture(settings())
    with pytest.raises(records.CorruptRecordError, match="holds an image that cannot be read: an image must be JPEG or PNG"):
        gather(mixture.main.train, np.arange(12), mixture.specs)
    faults = Faults()
    batch = gather(mixture.main.train, np.arange(12), mixture.specs, faults=faults)
    shown = batch.observation.images["primary"][:, -1, 0, 0, 0]
    assert faults.total >= 2  # the windows that see it: at steps 2 and 3
    assert set(np.rint((shown - 5.0) / 10).astype(int)) <= {0, 1, 2, 3}
    assert batch.observation.image_masks["primary"][:, -1].all()


def test_one_step_and_no_instruction_are_no_faults(make_folder, settings):
    one = {**toy_rlds.make_episode(0, 1), "language_instruction": [b""]}
    make_folder("toy", toy_rlds.STEPS, {"train": [[one]]}, toy_rlds.SPEC)
    mixture = open_mixture(settings(cameras=("primary", "goal_primary")))
    batch = next(make_loader(mixture, "train", 2, seed=0, num_threads=0))
    assert not batch.observation.language_mask.any()
    assert batch.observation.timestep_mask.tolist() == [[False, True]] * 2
    assert batch.action_mask[:, :, 0].tolist() == [[True, False, False, False]] * 2


def test_features_of_another_version_are_named(shards, settings):
    path = shards[0].parent / "features.json"
    tree = json.loads(path.read_text())
    steps = tree["featuresDict"]["features"]["steps"]["sequence"]["feature"]["featuresDict"]["features"]
    steps["action"]["tensor"]["shape"]["dimensions"] = ["7"]
    path.write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=r"record 0: every step must have a tensor of shape \(7,\) as features.json says"):
        open_mixture(settings())
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"features\.json must describe episodes with a 'steps' feature"):
        open_mixture(settings())


def test_counts_keep_the_first_messages(caplog):
    faults = Faults()
    for number in range(120):
        faults.report("replaced windows", f"window {number}")
    assert faults.counts == {"replaced windows": 120}
    assert faults.messages["replaced windows"] == [f"window {number}" for number in range(5)]
    assert [record.args[1] for record in caplog.records] == [1, 2, 3, 4, 5, 10, 100]
