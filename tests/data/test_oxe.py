"""The tables of Open X-Embodiment: true to the published metadata, every fact cited, every usable dataset through the whole loader."""

import json
import pathlib
import zlib

import fake_oxe
import numpy as np
import pytest

from ebt_jax.data.array_record import to_array_record
from ebt_jax.data.loader import make_loader
from ebt_jax.data.mixture import TOKENS, open_mixture
from ebt_jax.data.oxe import ENTRIES, RECORDS, find_dataset
from ebt_jax.data.oxe.mixtures import MIXTURES
from ebt_jax.data.oxe.record import Record
from ebt_jax.data.oxe.table import markdown
from ebt_jax.data.standardize import convert
from ebt_jax.specs import ActionDimension
from ebt_jax.text import tokenize

NOT_IN_THE_BUCKET = {"bridge_dataset"}  # its real features are in test_bridge.py
USABLE = sorted(set(ENTRIES) - NOT_IN_THE_BUCKET)


@pytest.fixture(scope="module")
def published(test_data):
    return fake_oxe.published(test_data)


def test_every_published_dataset_has_a_record(published):
    assert len(published) == 69
    assert set(RECORDS) - NOT_IN_THE_BUCKET == set(published)


def test_records_are_true_to_the_published_features(published):
    for name, facts in published.items():
        record = RECORDS[name]
        assert record.version == facts.version, name
        features = [*record.action_features, *record.proprio_features, *(feature for feature, _ in record.cameras.values())]
        features += [feature for feature in (record.language, record.embedding, *record.paraphrases) if feature]
        for feature in features:
            group = "/".join(feature.split("/")[:2]) if feature.startswith("observation/") else feature.split("/")[0]
            assert feature in facts.keys or group in facts.keys, (name, feature)
        for feature, dtype in record.action_features.items():
            if feature in facts.typed:
                assert dtype == facts.typed[feature], (name, feature)
        for feature, encoding in record.cameras.values():
            if feature in facts.images:
                (_, _, channels), dtype, stated = facts.images[feature]
                assert (channels, dtype, encoding) == (3, "uint8", stated), (name, feature)
        if record.embedding:
            assert facts.typed[record.embedding] == "float32 512"


@pytest.mark.parametrize("record", RECORDS.values(), ids=lambda record: record.name)
def test_every_known_fact_is_cited(record):
    known = {
        "features": True,
        "cameras": bool(record.cameras),
        "action": bool(record.action),
        "units": any(dimension.unit not in ("", "unknown") for dimension in record.action),
        "frame": record.frame != "unknown",
        "gripper": record.gripper != "none",
        "proprio": bool(record.proprio),
        "rate": record.rate_hz is not None,
        "success": bool(record.success),
    }
    assert [fact for fact, is_known in known.items() if is_known and fact not in record.sources] == []


def test_a_source_that_nobody_can_look_up_is_refused():
    with pytest.raises(ValueError, match="sources of 'mine' must name facts"):
        Record("mine", "1.0.0", "arm", {"action": "float32 7"}, sources={"action": "hearsay"}, not_for_control="no")
    with pytest.raises(ValueError, match="got both or neither"):
        Record("mine", "1.0.0", "arm", {"action": "float32 7"})


def test_actions_keep_the_common_conventions():
    for name, entry in ENTRIES.items():
        for dimension in entry.spec.action:
            assert dimension.unit in {"eef_delta": ("m", "rad", "unknown"), "eef_absolute": ("m", "rad", "", "unknown")}.get(
                dimension.kind, ("rad", "unknown") if dimension.kind.startswith("joint") else ("",)
            ), (name, dimension)
        grippers = [dimension for dimension in entry.spec.action if dimension.kind == "gripper"]
        assert grippers in ([], [ActionDimension("gripper", "gripper", "", 0.0, 1.0)]), name


OPEN_AND_CLOSED = {
    "true = open": (1, 0),
    "1 = open": (1, 0),
    "0 or 1; sources disagree which is open (see defects); read as 1 = open": (1, 0),
    "from 0 (closed) to 1 (open)": (1, 0),
    "1 = closed": (0, 1),
    "1 = closed, as the state's is: that of the command is inferred": (0, 1),
    "not commanded: the state's, 1 = closed, of the same step": (0, 1),
    "from 0 (open) to 1 (closed)": (0, 1),
    "-1 or 1; sources disagree which is open (see defects); read as 1 = open": (1, -1),
    "-1 = closed, 1 = open": (1, -1),
    "target from -1 (closed) to 1 (open)": (1, -1),
    "-1 = open, 1 = closed": (-1, 1),
    "1 closes, -1 opens, 0 leaves it; becomes where the gripper is": (-1, 1),
    "Octo reads events, RDT a position from -0.28 (open) to 0.96 (closed); events above 0.1 fit both": (-0.28, 0.96),
}
"""What the page says of a stored gripper -> the stored numbers that open and close it."""


@pytest.mark.parametrize("name", [name for name, record in RECORDS.items() if any(d.kind == "gripper" for d in record.action)])
def test_a_gripper_opens_at_what_the_page_says_opens_it(name):
    """Of all stored columns one is the gripper's: it alone turns 1 into 0 where the stored number goes from open to closed."""
    record = RECORDS[name]
    at = [dimension.kind for dimension in record.action].index("gripper")
    opened, closed = OPEN_AND_CLOSED[record.gripper]
    turned_into_angles = any(conversion.what == "quaternion_xyzw" for conversion in record.action_conversions)
    width = max(len(record.action) + turned_into_angles, *(1 + max(c.columns) for c in record.action_conversions), 0)
    found = []
    for column in range(width):
        stored = np.full((4, width), 0.25, np.float32)
        stored[:, column] = [opened, closed, opened, closed]
        found.append(convert(stored, record.action_conversions)[:, at].tolist() == [1, 0, 1, 0])
    assert sum(found) == 1


HALF = [np.sin(0.1), np.cos(0.1)]  # of a turn by 0.2
ROWS = {
    # From 0 (closed) to 1 (open), half open on its way: where it is going counts, as in Octo.
    "bridge_dataset": (
        {"action": [[0.01, -0.02, 0.03, 0.1, -0.2, 0.3, gripper] for gripper in (1.0, 0.7, 0.3, 0.0, 0.4, 1.0)]},
        [[0.01, -0.02, 0.03, 0.1, -0.2, 0.3, gripper] for gripper in (1, 0, 0, 0, 1, 1)],
        None,
    ),
    # scipy's zxy: the angles lie about z, x, y; 1 closes.
    "dlr_edan_shared_control_converted_externally_to_rlds": (
        {"action": [[0.1, 0.2, 0.3, 0.03, 0.01, 0.02, 1.0]], "observation/state": [[0.4, 0.5, 0.6, 0.3, 0.1, 0.2, 0.0]]},
        [[0.1, 0.2, 0.3, 0.01, 0.02, 0.03, 0.0]],
        [[0.4, 0.5, 0.6, 0.1, 0.2, 0.3, 0.0]],
    ),
    # droid/robot_ik/robot_ik_solver.py: a velocity within the unit ball is 0.075 m and 0.15 rad a step; 0 is an open gripper.
    "droid": (
        {
            "action_dict/cartesian_velocity": [[1.0, 0.0, 0.0, 0.0, 0.0, 0.5], [0.0, 3.0, 4.0, -2.0, 0.0, 0.0]],
            "action_dict/gripper_position": [[0.0], [0.75]],
        },
        [[0.075, 0.0, 0.0, 0.0, 0.0, 0.075, 1.0], [0.0, 0.045, 0.06, -0.15, 0.0, 0.0, 0.25]],
        None,
    ),
    # Absolute poses as they are; true is open.
    "toto": (
        {
            "action/world_vector": [[0.5, 0.1, 0.4], [0.6, 0.0, 0.3]],
            "action/rotation_delta": [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]],
            "action/open_gripper": [True, False],
        },
        [[0.5, 0.1, 0.4, 1.0, 2.0, 3.0, 1.0], [0.6, 0.0, 0.3, 3.0, 2.0, 1.0, 0.0]],
        None,
    ),
    # Events: 1 closes, -1 opens, 0 leaves it; the first one closes, so it was open.
    "jaco_play": (
        {
            "action/world_vector": [[0.2, 0.0, -0.1]] * 6,
            "action/gripper_closedness_action": [[0.0], [1.0], [0.0], [-1.0], [0.0], [1.0]],
        },
        [[0.2, 0.0, -0.1, opening] for opening in (1, 0, 0, 1, 1, 0)],
        None,
    ),
    # A quaternion x, y, z, w, here a turn by 0.2 about z, and about x; -1 is open.
    "furniture_bench_dataset_converted_externally_to_rlds": (
        {"action": [[0.01, 0.02, 0.03, 0.0, 0.0, *HALF, -1.0], [0.0, 0.0, 0.0, HALF[0], 0.0, 0.0, HALF[1], 1.0]]},
        [[0.01, 0.02, 0.03, 0.0, 0.0, 0.2, 1.0], [0.0, 0.0, 0.0, 0.2, 0.0, 0.0, 0.0]],
        None,
    ),
    # The first of ten waypoints, as a change of position and of the rotation vector; 1 is closed.
    "bc_z": (
        {
            "action/future/xyz_residual": [[0.01, 0.02, 0.03] + [9.0] * 27] * 3,
            "action/future/axis_angle_residual": [turn + [9.0] * 27 for turn in ([0.0, 0.0, 0.25], [-0.2, 0.0, 0.0], [0.0, -0.3, 0.0])],
            "action/future/target_close": [[1] + [0] * 9, [0] + [1] * 9, [0] + [1] * 9],
            "observation/present/axis_angle": [[0.0, 0.0, 1.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]],
        },
        [
            [0.01, 0.02, 0.03, 0.0, 0.0, 0.25, 0.0],
            [0.01, 0.02, 0.03, -0.2, 0.0, 0.0, 1.0],
            [0.01, 0.02, 0.03, 0.0, -0.3, 0.0, 1.0],
        ],
        None,
    ),
    # Targets within [-1, 1] are 0.1 m and 0.1 rad; the gripper's goes from -1 (closed) to 1 (open).
    "maniskill_dataset_converted_externally_to_rlds": (
        {"action": [[1.0, -0.5, 0.0, 0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]]},
        [[0.1, -0.05, 0.0, 0.0, 0.0, 0.05, 0.75], [0.0] * 7],
        None,
    ),
    # Millimetres and degrees; 1 is read as open; the last number ends the episode.
    "ucsd_kitchen_dataset_converted_externally_to_rlds": (
        {"action": [[200.0, -100.0, 300.0, 180.0, -90.0, 45.0, 1.0, 9.0], [0.0] * 8]},
        [[0.2, -0.1, 0.3, np.pi, -np.pi / 2, np.pi / 4, 1.0], [0.0] * 7],
        None,
    ),
    # Seven joint velocities first, an end of the episode last; differences of angles jump by 2 pi; -1 is closed.
    "nyu_franka_play_dataset_converted_externally_to_rlds": (
        {"action": [[9.0] * 7 + [0.01, 0.02, 0.03, 2 * np.pi - 0.1, 0.2, 0.3 - 2 * np.pi, gripper, 9.0] for gripper in (-1.0, 1.0)]},
        [[0.01, 0.02, 0.03, -0.1, 0.2, 0.3, opening] for opening in (0, 1)],
        None,
    ),
    # Its gripper is not commanded: the state's seventh number, 1 = closed, is taken.
    "berkeley_fanuc_manipulation": (
        {
            "action": [[0.01, -0.01, 0.0, 0.02, -0.02, 0.0]] * 2,
            "observation/state": [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, closed] + [9.0] * 6 for closed in (1.0, 0.0)],
        },
        [[0.01, -0.01, 0.0, 0.02, -0.02, 0.0, opening] for opening in (0, 1)],
        [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, closed] for closed in (1.0, 0.0)],
    ),
}
"""Steps as the dataset's documentation says they are stored -> its action, and its state where that is converted, by hand."""


@pytest.mark.parametrize("name", ROWS)
def test_what_is_stored_becomes_what_its_documentation_says(name):
    stored, action, state = ROWS[name]
    entry = ENTRIES[name] if state else ENTRIES[name]._replace(spec=ENTRIES[name].spec.show(()))
    found = entry.standardize(entry.spec, {feature: np.array(rows) for feature, rows in stored.items()})
    np.testing.assert_allclose(found[0], action, atol=1e-6)
    if state:
        np.testing.assert_allclose(found[1], state, atol=1e-6)


def test_every_conversion_that_the_tables_name_is_among_these():
    def named(names):
        specs = [ENTRIES[name].spec for name in names]
        return {conversion.what for spec in specs for conversion in (*spec.action_conversions, *spec.proprio_conversions)}

    assert named(ROWS) == named(ENTRIES)


def test_published_mixtures_name_known_datasets():
    octo = MIXTURES["octo/oxe_magic_soup"]
    assert len(octo) == 25
    assert {*octo, "droid", "fmb", "dobbe"} <= set(ENTRIES)
    for name, mixture in MIXTURES.items():
        assert set(mixture) <= set(RECORDS), name
        refused = set(mixture) - set(ENTRIES)
        assert not refused or name.endswith("rtx_franka"), (name, refused)


def test_a_dataset_that_is_not_for_control_is_refused_with_the_reason(published, make_folder, settings):
    for name in ("berkeley_gnm_recon", "robo_net", "tidybot"):
        tree, episodes = fake_oxe.fake(RECORDS[name], published[name])
        make_folder(name, tree, {"train": [episodes]}, version=published[name].version)
        with pytest.raises(ValueError, match=rf"'{name}' must have actions whose meaning is known, .*{RECORDS[name].not_for_control[:40]}"):
            open_mixture(settings(mixture=name))
    with pytest.raises(ValueError, match="not for control"):
        RECORDS["robot_vqa"].spec()


@pytest.mark.parametrize("name", USABLE)
def test_a_dataset_with_the_published_features_goes_through_the_loader(name, published, make_folder, settings):
    """Every stored number arrives where the conversions find it; what they make of it is held to documents above."""
    record, facts = RECORDS[name], published[name]
    tree, episodes = fake_oxe.fake(record, facts)
    make_folder(name, tree, {"train": [episodes]}, version=facts.version, beside=fake_oxe.beside(record))
    mixture = open_mixture(settings(mixture=name, cameras=tuple(record.cameras), action_horizon=2, normalization="min_max"))
    assert mixture.num_transitions == sum(fake_oxe.LENGTHS)
    assert mixture.specs.action.dimensions == record.action

    index = mixture.main.train.index
    expected = [convert(_joined(episode, record.action_features), record.action_conversions) for episode in episodes]
    np.testing.assert_allclose(index.columns["action"], np.concatenate(expected), atol=1e-6)
    if "action/world_vector" in record.action_features:
        written = np.concatenate([episode["action/world_vector"] for episode in episodes])
        np.testing.assert_array_equal(index.columns["action"][:, :3], written)
    for i, dimension in enumerate(record.action):
        if dimension.kind == "gripper":
            assert ((index.columns["action"][:, i] >= 0) & (index.columns["action"][:, i] <= 1)).all()
    if record.proprio:
        expected = [convert(_joined(episode, record.proprio_features), record.proprio_conversions) for episode in episodes]
        np.testing.assert_allclose(index.columns["proprio"], np.concatenate(expected), atol=1e-6)

    batch = next(make_loader(mixture, "train", 8, seed=0, num_threads=1, prefetch=1))
    assert batch.actions.shape == (8, 2, len(record.action))
    assert np.abs(batch.actions).max() <= 1 + 1e-5
    newest = {int(image[-1, 0, 0, 0]) for images in batch.observation.images.values() for image in images}
    levels = {fake_oxe.grey(number, step) for number, length in enumerate(fake_oxe.LENGTHS) for step in range(length)}
    assert all(min(abs(level - other) for other in levels) <= 2 for level in newest)
    assert len(newest) > 2
    assert all(mask[:, -1].all() for mask in batch.observation.image_masks.values())
    assert batch.observation.language_mask.any(axis=1).all()

    assert mixture.main.train.episodes["success"].tolist() == ([1, 0] if record.success else [-1, -1])
    tokens = open_mixture(settings(mixture=name, language="tokens", cameras=())).example_batch()
    ids, mask = tokenize(fake_oxe.TASK, TOKENS)
    np.testing.assert_array_equal(tokens.observation.language[0], ids)
    np.testing.assert_array_equal(tokens.observation.language_mask[0], mask)


def _renamed(path, name, version):
    """A dataset's folders under other names than it was written with."""
    dataset = path.parent.rename(path.parent.parent / name)
    return (dataset / path.name).rename(dataset / version)


def test_droid_opens_as_it_is_published(published, make_folder, settings, tmp_path, caplog):
    """`droid/1.0.1` was written as `droid_101` 0.0.1; rewritten as ArrayRecord it is `droid` 1.0.1 still."""
    tree, episodes = fake_oxe.fake(RECORDS["droid"], published["droid"])
    beside = fake_oxe.beside(RECORDS["droid"])
    path = _renamed(make_folder("droid_101", tree, {"train": [episodes]}, version="0.0.1", beside=beside), "droid", "1.0.1")
    assert any(file.name.startswith("droid_101-train.tfrecord") for file in path.iterdir())
    with caplog.at_level("WARNING"):
        mixture = open_mixture(settings(mixture="droid"))
    assert [(tree["name"], tree["version"]) for tree in json.loads(mixture.manifest())] == [("droid", "1.0.1")]
    assert mixture.specs.action.dimensions == RECORDS["droid"].action
    assert not [record for record in caplog.records if "what is known" in record.message]

    to_array_record(find_dataset(str(tmp_path / "data"), "droid"), tmp_path / "fast")
    rewritten = open_mixture(settings(mixture="droid", data_dir=str(tmp_path / "fast")))
    assert rewritten.main.folder.file_format == "array_record"
    rewritten.check_manifest(mixture.manifest())


def test_a_dataset_in_a_folder_of_another_name_is_known_by_its_own(published, make_folder, settings):
    """Also where that other name is a known dataset's, whose actions it does not have."""
    tree, episodes = fake_oxe.fake(RECORDS["utaustin_mutex"], published["utaustin_mutex"])
    for name in ("mine", "toto"):
        _renamed(make_folder("utaustin_mutex", tree, {"train": [episodes]}, version="0.1.0"), name, "0.1.0")
        mixture = open_mixture(settings(mixture=name))
        assert mixture.specs.action.dimensions == RECORDS["utaustin_mutex"].action
        assert mixture.main.folder.name == name


def test_the_version_that_is_known_is_taken_before_a_newer_one(published, make_folder, settings, tmp_path, caplog):
    """`bc_z` has 0.1.0, which the record is of, and a later version that is reported broken."""
    tree, episodes = fake_oxe.fake(RECORDS["bc_z"], published["bc_z"])
    known, newer = (make_folder("bc_z", tree, {"train": [episodes]}, version=version) for version in ("0.1.0", "1.0.1"))
    assert find_dataset(str(tmp_path / "data"), "bc_z").version == open_mixture(settings(mixture="bc_z")).main.folder.version == "0.1.0"
    assert find_dataset(str(newer), "bc_z").version == "1.0.1"  # chosen by whoever names its folder
    assert not [record for record in caplog.records if "what is known" in record.message]

    (newer / "ebt_spec.json").write_text(RECORDS["bc_z"].spec().to_json())
    assert find_dataset(str(tmp_path / "data"), "bc_z").version == "1.0.1"  # and whoever describes it
    (newer / "ebt_spec.json").unlink()
    known.rename(known.with_name("0.0.9"))
    with caplog.at_level("WARNING"):
        assert open_mixture(settings(mixture="bc_z")).main.folder.version == "1.0.1"
    assert "bc_z: what is known holds for version 0.1.0, this is 1.0.1" in caplog.text


def test_the_documented_table_is_the_one_in_the_code():
    page = pathlib.Path(__file__).parents[2] / "docs" / "datasets.md"
    assert page.read_text() == markdown(), "python -m ebt_jax.data.oxe.table > docs/datasets.md"


def _joined(episode, features):
    """The values of an episode side by side, from what was written."""
    return np.concatenate([_flat(episode[key]) for key in features], axis=1).astype(np.float32)


def _flat(values):
    if isinstance(values, list):
        return np.stack([np.frombuffer(zlib.decompress(data), np.float32) for data in values])
    return np.asarray(values).reshape(len(values), -1)
