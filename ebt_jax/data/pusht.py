"""PushT in numbers: what converter and simulator must agree on, and the human demonstrations.

A T-shaped block lies in a plane of 512 x 512 pixels; an agent pushes it onto a goal. The agent is told where to go (x, y), the
policy sees where the agent is and where nine points of the block are.

Source: Chi et al., Diffusion Policy (arXiv 2303.04137), and its repository's `env/pusht`.
"""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from ebt_jax.data.conversion import Conversion
from ebt_jax.data.spec import DatasetSpec
from ebt_jax.data.write import Demonstration
from ebt_jax.specs import ActionDimension, Dimension

SIZE = 512.0
IMAGE_SIZE = 96
CONTROL_RATE_HZ = 10.0
INSTRUCTION = "push the T-shaped block onto the goal"

PROPRIO = (
    Dimension("agent_x", "px"),
    Dimension("agent_y", "px"),
    *(Dimension(f"keypoint{i}_{axis}", "px") for i in range(9) for axis in "xy"),
)
ACTION = tuple(ActionDimension(f"target_{axis}", "eef_absolute", "px", low=0.0, high=SIZE) for axis in "xy")
FRAME = "plane"

KEYPOINTS = np.array(
    [
        (9.2698, 90.0410),
        (-60.9835, -1.1867),
        (60.9128, -1.3934),
        (-0.2705, 25.5436),
        (-14.0649, 122.8159),
        (39.0027, 32.8574),
        (-39.9664, 32.7297),
        (-16.8243, 62.8632),
        (23.5415, -1.7003),
    ]
)
"""The nine points in the block's frame: the median over the published demonstrations (theirs were drawn at random once)."""


def keypoints(block_pose: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 18"]:
    """position + R(angle) KEYPOINTS, as x0, y0, x1, ... in pixels, from poses (x px, y px, angle rad)."""
    x, y, angle = (block_pose[..., i, None] for i in range(3))
    cos, sin = np.cos(angle), np.sin(angle)
    across, along = KEYPOINTS.T
    points = np.stack([x + cos * across - sin * along, y + sin * across + cos * along], axis=-1)
    return points.reshape(*block_pose.shape[:-1], 18)


def published_episodes() -> list[int]:
    """The 90 of the 206 demonstrations that published policies were trained on, in order.

    As Diffusion Policy draws them (`val_ratio` 0.02, `max_train_episodes` 90, seed 42): 4 are held out, 90 of the others kept.
    """
    held_out = np.random.default_rng(42).choice(206, size=4, replace=False)
    others = np.setdiff1d(np.arange(206), held_out)
    return sorted(others[np.random.default_rng(42).choice(len(others), size=90, replace=False)].tolist())


def pusht_zarr(path: str, name: str = "", spec: DatasetSpec | None = None) -> Conversion:
    """The human PushT demonstrations of Diffusion Policy (`pusht_cchi_v7_replay.zarr`, 206 episodes).

    State = agent x, y and nine keypoints of the block, computed from its pose as the simulator computes them; the pose itself
    stays beside it as `block_pose`. Images lose nothing: they hold whole numbers stored as float32. No reward was recorded, so it
    is 0. Raises FileNotFoundError for a path without such data, ValueError for a `spec` (this data is known) and where a chunk is missing
    (zarr would read it as zeros), ImportError without zarr.
    """
    folder = pathlib.Path(path)
    if spec is not None:
        raise ValueError(
            f"source pusht_zarr must have no spec, got one named {spec.name!r}: what its numbers mean is known. Leave --spec out."
        )
    if not (folder / "meta" / "episode_ends").exists():
        raise FileNotFoundError(f"input must be a folder like pusht_cchi_v7_replay.zarr with meta/episode_ends, got {path}.")
    try:
        import zarr
    except ImportError as error:
        raise ImportError("source pusht_zarr needs zarr: pip install 'ebt_jax[convert]'.") from error

    arrays = {key: zarr.open_array(folder / key, mode="r") for key in ("meta/episode_ends", "data/img", "data/state", "data/action")}
    for key, array in arrays.items():
        if array.nchunks_initialized != array.nchunks:
            raise ValueError(f"{folder / key} must hold {array.nchunks} chunks, got {array.nchunks_initialized}. Is the copy complete?")
    ends, *columns = arrays.values()
    ends = np.asarray(ends)

    def read(numbers: Sequence[int]) -> Iterator[Demonstration]:
        for index in numbers:
            start, end = int(ends[index - 1]) if index else 0, int(ends[index])
            images, state, actions = (np.asarray(column[start:end]) for column in columns)
            pictures = images.astype(np.uint8)
            if not np.array_equal(pictures, images):
                raise ValueError(f"images of episode {index} must be whole numbers in [0, 255], got {images.min()} to {images.max()}.")
            agent, pose = state[:, :2], state[:, 2:]
            yield Demonstration(
                observations={
                    "state": np.concatenate([agent, keypoints(pose.astype(np.float64)).astype(np.float32)], axis=1),
                    "block_pose": pose,
                    "image": pictures,
                },
                actions=actions,
                rewards=np.zeros(len(actions), np.float32),
                instruction=INSTRUCTION,
                terminal=True,
                source=f"{folder.name} episode {index}",
            )

    known = DatasetSpec(
        name=name or "pusht",
        action_keys=("action",),
        action=ACTION,
        proprio_keys=("observation/state",),
        proprio=PROPRIO,
        cameras={"primary": "observation/image"},
        language_key="language_instruction",
        action_frame=FRAME,
        control_rate_hz=CONTROL_RATE_HZ,
        source="pusht_cchi_v7_replay.zarr of Diffusion Policy (arXiv 2303.04137), github.com/real-stanford/diffusion_policy",
    )
    return Conversion(
        known, read, range(len(ends)), "Human demonstrations of PushT, from the replay buffer of Diffusion Policy, which has 206."
    )
