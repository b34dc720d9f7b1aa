"""robomimic's files keep every number and pixel on their way into RLDS, and their actions become metres, radians and an opening."""

import json
import pathlib
from typing import Any

import h5py
import numpy as np
import pytest

from ebt_jax.data.mixture import episodes, open_mixture
from ebt_jax.data.robomimic import osc_action, robomimic_hdf5
from ebt_jax.data.settings import DataSettings
from ebt_jax.data.spec import DatasetSpec
from ebt_jax.data.standardize import convert, join
from ebt_jax.data.write import write_rlds
from ebt_jax.specs import ActionDimension

OSC = {"type": "OSC_POSE", "output_max": [0.05] * 3 + [0.5] * 3, "output_min": [-0.05] * 3 + [-0.5] * 3, "control_delta": True}
ENVIRONMENT = {
    "env_name": "NutAssemblySquare",
    "type": 1,
    "env_version": "1.4.1",
    "env_kwargs": {"robots": ["Panda"], "control_freq": 20, "controller_configs": OSC},
}
LENGTHS = {"demo_0": 4, "demo_2": 3, "demo_10": 5}


def write_file(path: pathlib.Path, environment: dict[str, Any] = ENVIRONMENT, width: int = 7, obs: bool = True) -> pathlib.Path:
    generator = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["env_args"] = json.dumps(environment)
        for demo, n in LENGTHS.items():
            group = file["data"].create_group(demo)
            group["actions"] = generator.uniform(-1, 1, (n, width))
            group["rewards"], group["dones"] = np.eye(n)[-1], np.eye(n, dtype=int)[-1]
            group["states"] = np.zeros((n, 45))
            if obs:
                group["obs/robot0_eef_pos"] = generator.normal(size=(n, 3))
                group["obs/robot0_eef_quat"] = generator.normal(size=(n, 4))
                group["obs/robot0_gripper_qpos"] = generator.normal(size=(n, 2))
                group["obs/object"] = generator.normal(size=(n, 14))
                group["obs/agentview_image"] = generator.integers(0, 256, (n, 12, 16, 3), np.uint8)
                group["obs/robot0_eye_in_hand_image"] = generator.integers(0, 256, (n, 12, 16, 3), np.uint8)
                group["obs/agentview_depth"] = generator.normal(size=(n, 12, 16, 1))
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write_file(tmp_path_factory.mktemp("robomimic") / "image_v141.hdf5")


@pytest.fixture(scope="module")
def folder(source: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    conversion = robomimic_hdf5(str(source), "square")
    assert conversion.numbers == range(3)
    return write_rlds(tmp_path_factory.mktemp("written"), conversion.spec, conversion.episodes, conversion.description)


@pytest.mark.slow
def test_tensorflow_datasets_finds_every_value_as_it_was(source: pathlib.Path, folder: pathlib.Path) -> None:
    import tensorflow_datasets as tfds

    found = list(tfds.as_numpy(tfds.builder_from_directory(folder).as_dataset(split="train")))
    assert [episode["episode_metadata"]["file_path"].decode() for episode in found] == [f"image_v141.hdf5 {demo}" for demo in LENGTHS]
    with h5py.File(source) as file:
        for demo, episode in zip(LENGTHS, found, strict=True):
            steps, group = list(episode["steps"]), file["data"][demo]
            np.testing.assert_array_equal([step["action"] for step in steps], group["actions"][:].astype(np.float32))
            np.testing.assert_array_equal([step["reward"] for step in steps], group["rewards"][:])
            assert [bool(step["is_terminal"]) for step in steps] == [False] * (len(steps) - 1) + [True]
            assert set(steps[0]["observation"]) == set(group["obs"]) - {"agentview_depth"}
            for key in steps[0]["observation"]:
                given = group["obs"][key][:]
                np.testing.assert_array_equal(
                    [step["observation"][key] for step in steps], given if given.ndim == 4 else given.astype(np.float32)
                )


def test_our_loader_reads_metres_radians_and_an_opening(source: pathlib.Path, folder: pathlib.Path) -> None:
    settings = DataSettings(str(folder.parent.parent), "square", 1, 2, 16, ("primary", "wrist"), validation_fraction=0.0)
    mixture = open_mixture(settings)
    spec = mixture.specs.action
    assert [(d.name, d.kind, d.unit, d.high) for d in spec.dimensions] == [
        *((axis, "eef_delta", "m", 0.05) for axis in "xyz"),
        *((f"rotation_{axis}", "eef_delta", "rad", 0.5) for axis in "xyz"),
        ("gripper", "gripper", "", 1.0),
    ]
    assert (spec.frame, spec.control_rate_hz) == ("world", 20.0)
    assert [d.name for d in mixture.specs.observation.proprio][:7] == ["eef_x", "eef_y", "eef_z", "eef_qx", "eef_qy", "eef_qz", "eef_qw"]
    with h5py.File(source) as file:
        for demo, episode in zip(LENGTHS, episodes(mixture, "train"), strict=True):
            actions = file["data"][demo]["actions"][:]
            expected = np.concatenate([0.05 * actions[:, :3], 0.5 * actions[:, 3:6], (1 - actions[:, 6:]) / 2], axis=1)
            np.testing.assert_allclose(episode.actions, expected, atol=1e-6)
            assert episode.instruction == "nut assembly square"
            assert set(episode.observation.images) == {"primary", "wrist"}


def test_closing_is_closing() -> None:
    action = osc_action([OSC])
    opened, closed = convert(np.array([[0.0] * 6 + [-1.0], [0.0] * 6 + [1.0]]), action.conversions)[:, 6]
    assert (opened, closed) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("configs", "width", "kinds", "frame"),
    [
        ([OSC], 7, {"eef_delta"}, "world"),
        ([{**OSC, "control_delta": False}], 7, {"eef_absolute"}, "world"),
        ([{**OSC, "type": "OSC_POSITION", "output_max": 0.1, "output_min": -0.1}], 4, {"eef_delta"}, "world"),
        ([{**OSC, "input_type": "delta", "input_ref_frame": "base"}] * 2, 14, {"eef_delta"}, "base"),
    ],
)
def test_controllers_that_are_understood(configs, width, kinds, frame) -> None:
    action = osc_action(configs)
    assert len(action.dimensions) == width
    assert {d.kind for d in action.dimensions} - {"gripper"} == kinds
    assert action.frame == frame
    assert convert(np.ones((1, width)), action.conversions).shape == (1, width)


def test_body_parts_of_robosuite_15(tmp_path: pathlib.Path) -> None:
    part = {**OSC, "input_type": "delta", "gripper": {"type": "GRIP"}}
    for parts in ({"right": part}, {"arms": {"right": {**part, "input_ref_frame": "base"}}}):
        controller = {"type": "BASIC", "body_parts": parts}
        kwargs = {**ENVIRONMENT["env_kwargs"], "controller_configs": controller}
        path = write_file(tmp_path / "file.hdf5", {**ENVIRONMENT, "env_kwargs": kwargs})
        assert robomimic_hdf5(str(path)).spec.action_frame == "base"


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({**ENVIRONMENT, "type": 2}, "environment of type 2"),
        ({"env_name": "Real"}, "environment of type None"),
        ({**ENVIRONMENT, "env_kwargs": {"robots": ["Panda"], "controller_configs": {"type": "JOINT_VELOCITY"}}}, "JOINT_VELOCITY"),
        ({**ENVIRONMENT, "env_kwargs": {"robots": ["Panda"]}}, "'nothing'"),
        ({**ENVIRONMENT, "env_kwargs": {"robots": ["Panda"], "controller_configs": {**OSC, "output_min": -0.1}}}, "not centred on 0"),
        (
            {**ENVIRONMENT, "env_kwargs": {"robots": ["Baxter"], "controller_configs": {"body_parts": {"right": OSC, "left": OSC}}}},
            "one robot with two arms",
        ),
        ({**ENVIRONMENT, "env_kwargs": {"robots": ["Panda"] * 2, "controller_configs": [OSC] * 2}}, "7 numbers where .* takes 14"),
    ],
)
def test_what_an_action_means_is_never_guessed(tmp_path: pathlib.Path, environment: dict[str, Any], reason: str) -> None:
    path = write_file(tmp_path / "file.hdf5", environment)
    with pytest.raises(ValueError, match=f"{reason}.*--spec=FILE.json.*observation/robot0_eef_pos"):
        robomimic_hdf5(str(path))
    given = DatasetSpec("mine", ("action",), tuple(ActionDimension(f"joint_{i}", "joint_delta", "rad") for i in range(7)))
    conversion = robomimic_hdf5(str(path), spec=given)
    assert conversion.spec.name == "mine"
    episode = next(conversion.episodes)
    action, _ = join(conversion.spec, {"action": episode.actions})
    np.testing.assert_array_equal(action, episode.actions)


def test_without_cameras_the_object_is_part_of_the_state(tmp_path: pathlib.Path) -> None:
    path = write_file(tmp_path / "low_dim.hdf5")
    with h5py.File(path, "a") as file:
        for demo in LENGTHS:
            for key in ("agentview_image", "robot0_eye_in_hand_image", "agentview_depth"):
                del file[f"data/{demo}/obs/{key}"]
    conversion = robomimic_hdf5(str(path))
    assert conversion.spec.cameras == {}
    assert [d.name for d in conversion.spec.proprio][-14:] == [f"object_{i}" for i in range(14)]
    episode = next(conversion.episodes)
    with h5py.File(path) as file:
        _, state = join(conversion.spec, {f"observation/{k}": v for k, v in episode.observations.items()} | {"action": episode.actions})
        np.testing.assert_array_equal(state[:, -14:], np.float32(file["data/demo_0/obs/object"]))


def test_a_file_that_says_its_instruction_and_names_otherwise(tmp_path: pathlib.Path) -> None:
    """LIBERO's: the sentence is the file's, and where no observation goes by a name of robomimic's nothing is left out in silence."""
    path = write_file(tmp_path / "libero.hdf5")
    with h5py.File(path, "a") as file:
        file["data"].attrs["problem_info"] = json.dumps({"language_instruction": ["put", "the bowl", "on the plate"]})
    assert next(robomimic_hdf5(str(path)).episodes).instruction == "put the bowl on the plate"
    names = {"agentview_image": "agentview_rgb", "robot0_eye_in_hand_image": "eye_in_hand_rgb", "robot0_eef_pos": "ee_pos",
             "robot0_eef_quat": "ee_quat", "robot0_gripper_qpos": "gripper_states", "object": "ee_ori"}  # fmt: skip
    with h5py.File(path, "a") as file:
        for demo in LENGTHS:
            for old, new in names.items():
                file[f"data/{demo}/obs"].move(old, new)
    with pytest.raises(ValueError, match=r"no observation by a name of robomimic's.*--spec=FILE.json.*observation/agentview_rgb"):
        robomimic_hdf5(str(path))


def test_states_that_nobody_rendered_are_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="dataset_states_to_obs"):
        robomimic_hdf5(str(write_file(tmp_path / "demo.hdf5", obs=False)))
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["x"] = 1
    with pytest.raises(ValueError, match=r"data/demo_0/actions.*got .*\['x'\]"):
        robomimic_hdf5(str(tmp_path / "other.hdf5"))
    with pytest.raises(FileNotFoundError, match="no file at"):
        robomimic_hdf5(str(tmp_path / "absent.hdf5"))
