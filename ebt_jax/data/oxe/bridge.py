"""BridgeData V2, WidowX 250 at 5 Hz, in its two RLDS editions.

Units and frame were checked on records: the difference of successive states follows the action axis by axis (correlation 0.7 to
0.9, slope about 1), so both are metres and radians along the axes of the robot's base. Octo replaces the commanded motion by that
difference; we keep the command, which is what a policy must send. The gripper command passes through half-open values on its
way; it becomes 0 or 1, as Octo has it.
"""

from ebt_jax.data.oxe.record import RPY, XYZ, Record, cite, deltas, do, state

SOURCES = cite(action="records", units="records", frame="records", gripper="octo", proprio="records", rate="bridge", robot="bridge")
STATE = (*state("m", XYZ), *state("rad", RPY), *state("", "gripper"))

RECORDS = (
    Record(
        "bridge_dataset",
        "1.0.0",
        "WidowX 250",
        {"action": "float32 7"},
        action=deltas("m", "rad"),
        action_conversions=(do("binarize", 6),),
        frame="base",
        gripper="from 0 (closed) to 1 (open)",
        proprio_features={"observation/state": "float32 7"},
        proprio=STATE,
        cameras={"primary": ("observation/image_0", "jpeg"), "secondary": ("observation/image_1", "jpeg")},
        rate_hz=5.0,
        sources=SOURCES,
        defects=(
            "not in the bucket: https://rail.eecs.berkeley.edu/datasets/bridge_release/data/tfds",
            "the first action of an episode is all zero (OpenVLA)",
            "a camera that an episode lacks is black",
        ),
    ),
    Record(
        "bridge",
        "0.1.0",
        "WidowX 250",
        {"action/world_vector": "float32 3", "action/rotation_delta": "float32 3", "action/open_gripper": "bool scalar"},
        action=deltas("m", "rad"),
        frame="base",
        gripper="true = open",
        proprio_features={"observation/state": "float32 7"},
        proprio=STATE,
        cameras={"primary": ("observation/image", "unstated")},
        language="observation/natural_language_instruction",
        embedding="observation/natural_language_embedding",
        rate_hz=5.0,
        sources=SOURCES,
        defects=("the first action of an episode is all zero (OpenVLA)", "an older and smaller edition than bridge_dataset"),
    ),
)
