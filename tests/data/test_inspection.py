"""What inspection says of datasets that are known in every number, good ones and spoilt ones."""

import dataclasses
import io
import pathlib

import numpy as np
import pytest
import simplejpeg
import toy_rlds
from PIL import Image

from ebt_jax.data import seek
from ebt_jax.data.folder import find_folder
from ebt_jax.data.inspection import facts, held_out_share, mixture_rows, opening, sample
from ebt_jax.data.settings import DataSettings
from ebt_jax.data.standardize import Entry
from ebt_jax.report.tables import listing
from ebt_jax.specs import ActionDimension, Dimension

SPEC = dataclasses.replace(
    toy_rlds.SPEC,
    action=(
        ActionDimension("x", "eef_delta", "m", -0.5, 0.5),
        ActionDimension("y", "eef_delta", "unknown"),
        ActionDimension("gripper", "gripper", "", 0.0, 1.0),
    ),
    proprio=(Dimension("x", "m"), Dimension("gripper", "")),
)


def episode(number: int, inverted: bool = False, black: bool = False, opening: bool = True, repeats: bool = False) -> dict:
    """Thirty steps: x moves by `number`, y never does; the gripper opens and closes every ten steps, its state follows a step behind.

    With `repeats` the action is the state's.
    """
    steps = np.arange(30)
    said = ((steps // 10 + number) % 2).astype(np.float32)
    follows = np.concatenate([said[:1], said[:-1]])
    follows = np.convolve(np.concatenate([np.full(2, follows[0]), follows]), np.ones(3) / 3, "valid")
    level = 0 if black else 100
    return {
        "action": np.stack([np.full(30, 0.1 * number), np.zeros(30), follows if repeats else said], 1).astype(np.float32),
        "observation/state": np.stack([steps, (1 - follows if inverted else follows) if opening else 0 * said], 1).astype(np.float32),
        "observation/image": [simplejpeg.encode_jpeg(np.full((8, 8, 3), level, np.uint8)) for _ in steps],
        "language_instruction": [b"" if number == 2 else b"open it"] * 30,
        "is_last": steps == 29,
    }


@pytest.fixture
def found(make_folder):
    def make(shards, split="train", spec=SPEC, **settings):
        path = make_folder("toy", toy_rlds.STEPS, {split: shards}, spec, **settings)
        return lambda episodes, **more: sample(find_folder(str(path.parent.parent), "toy"), Entry(spec), split, episodes, **more)

    return make


def test_numbers_of_the_whole_dataset(found) -> None:
    tree = facts(found([[episode(0), episode(1)], [episode(2), episode(9)]])(100))
    assert tree["sampled"]["what"].startswith("4 of 4 episodes, from 2 of 2 files")
    assert tree["lengths"] == {"mean": 30.0, "min": 30, "median": 30.0, "max": 30}
    assert tree["steps_in_all_about"] == 120
    x, y, _ = tree["action"]
    assert (x["mean"], x["min"], x["max"]) == pytest.approx((0.3, 0.0, 0.9))
    assert x["beyond_limits"] == pytest.approx(0.25)
    assert (x["constant"], y["constant"]) == (False, True)
    assert sum(x["histogram"]["counts"]) == 120
    assert tree["language"]["empty"] == 0.25
    assert tree["language"]["samples"] == {"open it": 3}
    assert tree["cameras"]["primary"]["sizes"] == {"8 x 8": 32}
    assert tree["warnings"] == [
        "action never moves in y",
        "action 'x' is beyond its limits in 25 % of the steps",
        "unit of action y is unknown",
        "no secondary and no wrist camera",
        "25 % of the episodes have an empty instruction",
    ]


@pytest.mark.parametrize("value", [0.1, -1000.0, 1e17])
def test_a_number_that_moves_by_the_noise_of_float32_has_a_histogram(found, value: float) -> None:
    still = episode(1)
    still["action"][:, 1] = value
    still["action"][::2, 1] = np.nextafter(np.float32(value), np.float32(np.inf))
    row = facts(found([[still]])(100))["action"][1]
    counts, edges = row["histogram"]["counts"], row["histogram"]["edges"]
    assert (row["constant"], sum(counts), np.count_nonzero(counts) <= 2) == (True, 30, True)
    assert edges[0] < row["min"] <= row["max"] < edges[-1]


@pytest.mark.parametrize(
    ("settings", "verdict"),
    [
        ({}, "agrees with the state: 100 %"),
        ({"inverted": True}, "LOOKS INVERTED: only 0 %"),
        ({"repeats": True}, "REPEATS THE STATE: at 100 % of its changes"),
        ({"opening": False}, "not checked: the state's gripper moves in 0 steps only; 50 % of the episodes begin open"),
    ],
)
def test_polarity_of_the_gripper(found, settings, verdict) -> None:
    tree = facts(found([[episode(i, **settings) for i in (0, 1, 2, 3)]])(100))
    assert tree["gripper"][0]["verdict"].startswith(verdict)
    assert any("LOOKS INVERTED" in warning for warning in tree["warnings"]) == bool(settings.get("inverted"))


def test_fingers_and_what_calls_itself_closed(found) -> None:
    closed = dataclasses.replace(SPEC, proprio=(Dimension("x", "m"), Dimension("gripper_closed", "")))
    tree = facts(found([[episode(i, inverted=True) for i in range(4)]], spec=closed)(100))
    assert tree["gripper"][0]["verdict"].startswith("agrees")


def test_where_a_gripper_is_says_not_how_far_it_is_open() -> None:
    numbers = ("gripper_x", "gripper_qw", "gripper", "gripper_opening")
    spec = dataclasses.replace(SPEC, proprio=tuple(Dimension(name, "m") for name in numbers))
    state = np.arange(4.0)[None] * np.ones((3, 1))
    assert opening(spec, state).tolist() == [3.0, 3.0, 3.0]
    assert opening(dataclasses.replace(spec, proprio=spec.proprio[:3]), state[:, :3]).tolist() == [2.0, 2.0, 2.0]
    assert opening(dataclasses.replace(spec, proprio=spec.proprio[:2]), state[:, :2]) is None


def test_without_a_gripper_in_the_state_the_start_is_evidence(found) -> None:
    blind = dataclasses.replace(SPEC, proprio=(Dimension("x", "m"), Dimension("y", "m")))
    tree = facts(found([[episode(0), episode(2), episode(4)]], spec=blind)(100))
    assert "may be inverted: the state has no gripper, and 100 % of the episodes begin closed" in tree["gripper"][0]["verdict"]


def test_a_black_camera_is_missing(found) -> None:
    tree = facts(found([[episode(0, black=True), episode(1)]])(100))
    assert tree["cameras"]["primary"]["black"] == 0.5
    assert "camera primary (observation/image) is black in 50 % of 16 pictures" in tree["warnings"]


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_a_sample_reads_only_what_it_says(found, monkeypatch, file_format: str) -> None:
    shards = [[episode(4 * file + i) for i in range(4)] for file in range(5)]
    read = []
    true_nth = seek.nth
    monkeypatch.setattr(seek, "nth", lambda *arguments: read.append(arguments) or true_nth(*arguments))
    drawn = found(shards, file_format=file_format)(6, seed=1)
    assert len(read) == len(drawn.episodes) == 6
    assert drawn.bytes_read == sum(len(toy_rlds.serialize(episode(round(float(e.actions[0, 0]) / 0.1)))) for e in drawn.episodes)
    numbers = sorted(round(float(e.actions[0, 0]) / 0.1) for e in drawn.episodes)
    assert len(set(numbers)) == 6
    places = [f"record {number % 4}" for number in numbers]
    assert [e.place.split(" ", 1)[1] for e in sorted(drawn.episodes, key=lambda e: e.actions[0, 0])] == places


def test_a_bucket_is_sampled_by_ranges(make_folder, bucket) -> None:
    make_folder("toy", toy_rlds.STEPS, {"train": [[episode(i) for i in range(8)]]}, SPEC)
    drawn = sample(find_folder("gs://data", "toy"), Entry(SPEC), "train", 2, seed=1)
    shard = [stop - start for path, start, stop in bucket.reads if "tfrecord" in path]
    assert sum(shard) == drawn.bytes_read + sum(size for size in shard if size == 12) + 2 * 4  # headers, and checksums behind the records
    assert "toy" in listing("gs://data")


def test_a_record_that_cannot_be_used_is_counted_and_named(found) -> None:
    spoilt = episode(1)
    spoilt["action"][3, 0] = np.nan
    drawn = found([[episode(0), spoilt, episode(2)]])(100)
    tree = facts(drawn)
    assert (len(drawn.episodes), tree["sampled"]["unusable"]) == (2, 1)
    assert "record 1: action must be finite, got nan at step 3" in tree["faults"][0]
    assert f"unusable: {tree['faults'][0]}" in tree["warnings"]


def test_a_picture_that_cannot_be_read_is_counted_and_named(found) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 100, np.uint8)).save(file, "PNG")
    spoilt = episode(1)
    spoilt["observation/image"][0] = file.getvalue()[:45]
    drawn = found([[episode(0), spoilt]])(100)
    assert len(drawn.episodes) == 1
    assert "record 1: a PNG must be readable" in drawn.faults[0]


def test_a_flipped_bit_is_found(found, tmp_path: pathlib.Path) -> None:
    draw = found([[episode(0), episode(1)]])
    path = next((tmp_path / "data").rglob("*.tfrecord-*"))
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(bytes(data))
    drawn = draw(100)
    assert len(drawn.episodes) == 1
    assert "record 0 is corrupt" in drawn.faults[0]


def test_an_empty_split_is_named(found) -> None:
    with pytest.raises(ValueError, match=r"must be one that holds episodes, \['train'\], got 'val'"):
        sample(found([[episode(0)]])(1).folder, Entry(SPEC), "val", 3)


def test_shares_of_a_mixture(found) -> None:
    drawn = found([[episode(i) for i in range(8)]])(100)
    settings = DataSettings("x", {"toy": 1.0}, validation_fraction=0.4)
    (row,) = mixture_rows([drawn], settings)
    assert (row["share"], row["episodes"], row["steps_about"]) == (1.0, 8, 240)
    assert row["held_out"] == held_out_share(drawn, settings)
    assert row["epochs_per_million_windows"] == pytest.approx(1e6 / (240 * (1 - row["held_out"])))
    renamed = DataSettings("x", {"bridge_orig": 1.0, "other": 3.0})  # folders need not be called what dataset_info.json says
    assert [row["share"] for row in mixture_rows([drawn, drawn], renamed)] == [0.25, 0.75]


def test_what_the_sample_holds_out_is_what_a_run_holds_out(found, tmp_path: pathlib.Path) -> None:
    from ebt_jax.data.mixture import open_mixture

    drawn = found([[episode(i) for i in range(9)]])(100)
    settings = DataSettings(str(tmp_path / "data"), "toy", 1, 1, 8, validation_fraction=0.4)
    trained = open_mixture(settings).datasets[0].statistics.num_episodes
    assert held_out_share(drawn, settings) == pytest.approx(1 - trained / 9)
