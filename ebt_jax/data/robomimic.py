"""robomimic's HDF5 files as episodes, and what robosuite's controllers make of their actions.

    FILE.hdf5
      data                        attribute env_args: environment, robots, controller, control rate
        demo_0                    actions [n a], rewards [n], dones [n]
          obs                     robot0_eef_pos [n 3], agentview_image [n y x 3], ...

An operational-space controller takes numbers in [-1, 1] and scales them: x, y, z to metres (0.05 where nobody changed it), the rest
to a rotation vector in radians that turns the hand about the axes of `frame`. The last number drives the gripper: -1 opens, 1 closes.

Source: robomimic's docs/datasets, robosuite's controllers/parts/arm/osc.py and models/grippers.
"""

import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from numpy.typing import NDArray

from ebt_jax.data.conversion import Conversion, dataset_name, refuse
from ebt_jax.data.spec import Conversion as Step
from ebt_jax.data.spec import DatasetSpec
from ebt_jax.data.write import Demonstration
from ebt_jax.specs import ActionDimension, Dimension

ROBOSUITE = 1
"""`type` in env_args of an environment of robosuite's."""

SIZES = {"OSC_POSE": 6, "OSC_POSITION": 3}
"""Controllers that are understood, and the numbers they take beside the gripper's."""

CAMERAS = {
    "primary": ("agentview_image", "frontview_image", "shouldercamera0_image"),
    "secondary": ("sideview_image", "shouldercamera1_image"),
    "wrist": ("robot0_eye_in_hand_image",),
}
"""Ours -> theirs, the preferred first."""


class Action(NamedTuple):
    """What the numbers of an action mean, and how they become so."""

    dimensions: tuple[ActionDimension, ...]
    conversions: tuple[Step, ...]
    frame: str


def robomimic_hdf5(path: str, name: str = "", spec: DatasetSpec | None = None) -> Conversion:
    """The demonstrations of a robomimic file, with every observation that is a picture or a vector.

    Actions of robosuite's OSC controllers explain themselves; others need `spec`. State = each arm's hand position, quaternion (x, y,
    z, w) and fingers, and in a file without cameras the "object", whose numbers are the task's own; beside cameras that is written and is
    not part of the state. The instruction is the file's (LIBERO's `problem_info`), else the environment's name in words. Raises
    FileNotFoundError for no such file, ValueError for a file without observations, with none that are known, or with actions that
    nothing explains, ImportError without h5py.
    """
    file_path = pathlib.Path(path)
    if not file_path.is_file():
        raise FileNotFoundError(f"input must be a robomimic file (.hdf5), got no file at {path}.")
    try:
        import h5py
    except ImportError as error:
        raise ImportError("source robomimic_hdf5 needs h5py: pip install 'ebt_jax[convert]'.") from error

    with h5py.File(file_path) as file:
        demos = _demos(file, path)
        data: Any = file["data"]
        first, environment = data[demos[0]], json.loads(data.attrs.get("env_args", "{}"))
        instruction = _instruction(json.loads(data.attrs.get("problem_info", "{}")), environment)
        kept = _kept(first["obs"])
        sizes = {key: first["obs"][key].shape[1:] for key in kept}
        width = first["actions"].shape[1]
    found = spec or _spec(path, environment, sizes, width)

    def read(numbers: Sequence[int]) -> Iterator[Demonstration]:
        with h5py.File(file_path) as file:
            data: Any = file["data"]
            for demo in (demos[number] for number in numbers):
                yield _demonstration(data[demo], kept, instruction, f"{file_path.name} {demo}")

    final = DatasetSpec(
        **{
            **vars(found),
            "name": name or (spec.name if spec else dataset_name(file_path.name)),
            "language_key": found.language_key or ("language_instruction" if instruction else ""),
            "source": found.source or f"robomimic, {file_path.name}",
        }
    )
    return Conversion(
        final, read, range(len(demos)), f"{environment.get('env_name', 'Demonstrations')}, from robomimic's {file_path.name}."
    )


def osc_action(controllers: list[Mapping[str, Any]]) -> Action:
    """What the joined actions of these arms mean: each a controller's numbers and one for the gripper.

    Raises ValueError with the reason for a controller that is not understood.
    """
    dimensions, steps, frames, at = [], [], set(), 0
    for number, config in enumerate(controllers):
        kind, arm = config.get("type", "nothing"), f"robot{number}_" if len(controllers) > 1 else ""
        if kind not in SIZES or config.get("impedance_mode", "fixed") != "fixed":
            raise ValueError(
                f"controller {kind!r} with impedance {config.get('impedance_mode', 'fixed')!r}, not {' or '.join(SIZES)}, fixed"
            )
        names = ("x", "y", "z", "rotation_x", "rotation_y", "rotation_z")[: SIZES[kind]]
        relative = config.get("input_type", "delta" if config.get("control_delta", True) else "absolute") == "delta"
        reach = _reach(config, len(names)) if relative else np.full(len(names), np.nan)
        for i, axis in enumerate(names):
            unit, limits = "m" if i < 3 else "rad", (-float(reach[i]), float(reach[i])) if relative else (None, None)
            dimensions.append(ActionDimension(arm + axis, "eef_delta" if relative else "eef_absolute", unit, *limits))
        dimensions.append(ActionDimension(f"{arm}gripper", "gripper", "", 0.0, 1.0))
        for by in np.unique(reach[np.isfinite(reach) & (reach != 1)]):
            steps.append(Step("scale", tuple(int(i) for i in at + np.flatnonzero(reach == by)), float(by)))
        steps += [Step("scale", (at + len(names),), -1.0), Step("signed_open", (at + len(names),))]
        frames.add(config.get("input_ref_frame", "world"))  # robosuite before 1.5 knew the world's frame only
        at += len(names) + 1
    if len(frames) != 1:
        raise ValueError(f"arms that move in the frames {sorted(frames)}")
    return Action(tuple(dimensions), tuple(steps), frames.pop())


def _reach(config: Mapping[str, Any], size: int) -> NDArray:
    """What 1 means, in metres and radians."""
    defaults = {"output_min": [-0.05] * 3 + [-0.5] * 3, "output_max": [0.05] * 3 + [0.5] * 3, "input_min": -1.0, "input_max": 1.0}
    low, high, least, most = (np.resize(np.asarray(config.get(key, default), float), size) for key, default in defaults.items())
    if not (np.array_equal(low, -high) and np.array_equal(least, -most) and (most > 0).all() and (high > 0).all()):
        raise ValueError(f"a controller whose ranges are not centred on 0: {least} to {most} -> {low} to {high}")
    return high / most


def _spec(path: str, environment: Mapping[str, Any], sizes: Mapping[str, tuple[int, ...]], width: int) -> DatasetSpec:
    features = ", ".join(["action", *(f"observation/{key}" for key in sizes)])
    kwargs = environment.get("env_kwargs", {})
    if environment.get("type") != ROBOSUITE:
        raise refuse(
            path, f"an environment of type {environment.get('type')} ({environment.get('env_name', 'unnamed')}), not robosuite's", features
        )
    robots = kwargs.get("robots", ["unknown"])
    robots = [robots] if isinstance(robots, str) else list(robots)
    try:
        action = osc_action(_controllers(kwargs.get("controller_configs"), len(robots)))
    except ValueError as error:
        raise refuse(path, str(error), features) from error
    if len(action.dimensions) != width:
        raise refuse(path, f"{width} numbers where the controller takes {len(action.dimensions)}", features)
    fingers = "m" if all("panda" in robot.lower() for robot in robots) else "unknown"
    proprio = {}
    for i in range(len(robots)):
        arm = f"robot{i}_"
        short = arm if len(robots) > 1 else ""
        parts = {
            f"{arm}eef_pos": [Dimension(f"{short}eef_{axis}", "m") for axis in "xyz"],
            f"{arm}eef_quat": [Dimension(f"{short}eef_q{axis}", "") for axis in "xyzw"],
        }
        opening = sizes.get(f"{arm}gripper_qpos", (0,))[0]
        parts[f"{arm}gripper_qpos"] = [Dimension(f"{short}finger_{j}", fingers) for j in range(opening)]
        proprio |= {f"observation/{key}": names for key, names in parts.items() if sizes.get(key) == (len(names),)}
    cameras = {
        camera: f"observation/{key}"
        for camera, keys in CAMERAS.items()
        for key in [next((key for key in keys if key in sizes), None)]
        if key
    }
    if not cameras and len(sizes.get("object", ())) == 1:
        proprio["observation/object"] = [Dimension(f"object_{i}", "unknown") for i in range(sizes["object"][0])]
    if not cameras and not proprio:
        raise refuse(path, "no observation by a name of robomimic's (agentview_image, robot0_eef_pos, object, ...)", features)
    return DatasetSpec(
        name=dataset_name(pathlib.Path(path).name),
        action_keys=("action",),
        action=action.dimensions,
        proprio_keys=tuple(proprio),
        proprio=tuple(dimension for names in proprio.values() for dimension in names),
        cameras=cameras,
        action_frame=action.frame,
        control_rate_hz=float(kwargs["control_freq"]) if "control_freq" in kwargs else None,
        source=f"robomimic, {pathlib.Path(path).name}: {environment['env_name']} on {', '.join(robots)}",
        action_conversions=action.conversions,
    )


def _controllers(configs: Any, arms: int) -> list[Mapping[str, Any]]:
    """One controller an arm, from robosuite's list, dict, or dict of body parts (1.5)."""
    found = []
    for config in configs if isinstance(configs, list) else [configs or {}]:
        parts = config.get("body_parts")
        if parts is None:
            found.append(config)
        else:
            sides = parts.get("arms", parts)
            arms_of_one = [{"input_ref_frame": "base", **sides[side]} for side in ("right", "left") if side in sides]
            if len(arms_of_one) > 1:
                raise ValueError("one robot with two arms, the order of whose numbers is not known")
            found += arms_of_one
    return found * arms if len(found) == 1 else found


def _demos(file: Any, path: str) -> list[str]:
    """demo_0, demo_1, ... by number. Raises ValueError for a file of another kind, or of states that nobody has rendered yet."""
    demos = sorted(file.get("data", {}), key=lambda key: [int(part) for part in re.findall(r"\d+", key)])
    if not demos or "actions" not in file["data"][demos[0]]:
        raise ValueError(f"input must hold data/demo_0/actions as robomimic writes it, got {path} with {sorted(file)}.")
    if "obs" not in file["data"][demos[0]]:
        raise ValueError(f"{path} must hold observations, got states only. Run robomimic's scripts/dataset_states_to_obs.py on it first.")
    return demos


def _kept(observations: Any) -> list[str]:
    """Pictures and vectors; what is neither (depth, point clouds) is named and left out."""
    pictures = [key for key, values in observations.items() if values.dtype == np.uint8 and values.ndim == 4 and values.shape[3] == 3]
    vectors = [key for key, values in observations.items() if values.ndim in (1, 2) and values.dtype.kind in "fiub"]
    left = sorted(set(observations) - {*pictures, *vectors})
    if left:
        logging.warning("not converted, neither a picture of three colours nor a vector: %s", ", ".join(left))
    return [*vectors, *pictures]


def _demonstration(demo: Any, kept: list[str], instruction: str, source: str) -> Demonstration:
    actions = np.asarray(demo["actions"], np.float32)
    observations = {key: np.asarray(demo["obs"][key]) for key in kept}
    return Demonstration(
        observations={key: values if values.ndim == 4 else values.astype(np.float32) for key, values in observations.items()},
        actions=actions,
        rewards=np.asarray(demo["rewards"], np.float32) if "rewards" in demo else np.zeros(len(actions), np.float32),
        instruction=instruction,
        terminal=bool(demo["dones"][-1]) if "dones" in demo else False,
        source=source,
    )


def _instruction(problem: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """What the file says is to be done, else NutAssemblySquare -> nut assembly square."""
    said = problem.get("language_instruction", "")
    said = " ".join(said) if isinstance(said, list) else str(said)
    return said.strip(' "') or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", environment.get("env_name", "")).lower()
