"""What is publicly known of one dataset of Open X-Embodiment: the row of a table, and the spec it amounts to.

Every fact names its source; what no source states is "unknown". A row with `not_for_control` says why no policy may learn its
actions here.
"""

import dataclasses
from collections.abc import Mapping

from ebt_jax.data.oxe.sources import SOURCES
from ebt_jax.data.spec import Conversion, DatasetSpec, What
from ebt_jax.specs import ActionDimension, ActionKind, Dimension

FACTS = ("features", "cameras", "action", "units", "frame", "gripper", "proprio", "rate", "robot", "success")
EMBEDDING_SIZE = 512
GRIPPER = ActionDimension("gripper", "gripper", "", 0.0, 1.0)
XYZ, RPY = "x y z", "roll pitch yaw"


@dataclasses.dataclass(frozen=True)
class Record:
    """One dataset.

    Attributes:
      version: of the published features that the rest was checked against.
      action_features: action feature -> dtype and size as published, "float32 7" or "bool scalar", joined in this order.
      action: what the joined and converted numbers mean; () where it is not known.
      gripper: how the dataset itself writes it, for people.
      proprio_features, proprio: likewise for the state.
      cameras: ours -> (feature, encoding as published: "jpeg", "png", "unstated").
      language: feature of the instruction; "" where there is none.
      paraphrases: features of other wordings of it.
      success: feature beside the steps that says whether an episode succeeded; "" where there is none.
      embedding: feature of its embedding of 512 numbers; "" where there is none.
      rate_hz: actions a second; None where unknown.
      sources: fact -> names in `SOURCES`, joined by "+".
      defects: what to know before using it.
      not_for_control: why its actions are refused; "" where they are not.
    """

    name: str
    version: str
    robot: str
    action_features: Mapping[str, str]
    action: tuple[ActionDimension, ...] = ()
    action_conversions: tuple[Conversion, ...] = ()
    frame: str = "unknown"
    gripper: str = "none"
    proprio_features: Mapping[str, str] = dataclasses.field(default_factory=dict)
    proprio: tuple[Dimension, ...] = ()
    proprio_conversions: tuple[Conversion, ...] = ()
    cameras: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    language: str = "language_instruction"
    embedding: str = "language_embedding"
    paraphrases: tuple[str, ...] = ()
    success: str = ""
    rate_hz: float | None = None
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
    defects: tuple[str, ...] = ()
    not_for_control: str = ""

    def __post_init__(self) -> None:
        cited = {source for sources in self.sources.values() for source in sources.split("+")}
        unknown = sorted(cited - set(SOURCES)) + sorted(set(self.sources) - set(FACTS))
        if unknown:
            raise ValueError(f"sources of {self.name!r} must name facts {FACTS} and be among {sorted(SOURCES)}, got {unknown}.")
        if bool(self.action) == bool(self.not_for_control):
            raise ValueError(f"dataset {self.name!r} must have a known action or a reason not_for_control, got both or neither.")

    def spec(self) -> DatasetSpec:
        """What the loader needs of it. Raises ValueError where the dataset is not for control, saying why."""
        if self.not_for_control:
            raise ValueError(
                f"dataset {self.name!r} must have actions whose meaning is known, got one that is not for control: {self.not_for_control} "
                "Leave it out of the mixture; or, if you know better, put an ebt_spec.json beside its features.json (docs/data.md)."
            )
        return DatasetSpec(
            name=self.name,
            action_keys=tuple(self.action_features),
            action=self.action,
            proprio_keys=tuple(self.proprio_features),
            proprio=self.proprio,
            cameras={camera: feature for camera, (feature, _) in self.cameras.items()},
            language_key=self.language,
            embedding_key=self.embedding,
            embedding_size=EMBEDDING_SIZE if self.embedding else 0,
            action_frame=self.frame,
            control_rate_hz=self.rate_hz,
            source="ebt_jax/data/oxe, docs/datasets.md",
            action_conversions=self.action_conversions,
            proprio_conversions=self.proprio_conversions,
            paraphrase_keys=self.paraphrases,
            success_key=self.success,
        )


def actions(kind: ActionKind, unit: str, names: str) -> tuple[ActionDimension, ...]:
    """Dimensions of one kind and unit."""
    return tuple(ActionDimension(name, kind, unit) for name in names.split())


def deltas(metres: str = "unknown", radians: str = "unknown") -> tuple[ActionDimension, ...]:
    """The commonest action: a displacement x, y, z, a turn roll, pitch, yaw, and a gripper."""
    return (*actions("eef_delta", metres, XYZ), *actions("eef_delta", radians, RPY), GRIPPER)


def state(unit: str, names: str) -> tuple[Dimension, ...]:
    """Dimensions of one unit."""
    return tuple(Dimension(name, unit) for name in names.split())


def joints(count: int, unit: str = "unknown") -> tuple[Dimension, ...]:
    """joint_0, joint_1, ..."""
    return tuple(Dimension(f"joint_{i}", unit) for i in range(count))


def do(what: What, *columns: int, by: float = 1.0) -> Conversion:
    """Shorthand of the tables."""
    return Conversion(what, columns, by)


def cite(**facts: str) -> dict[str, str]:
    """Sources of a row: features from the dataset itself, cameras as Octo assigns them, rate and robot as registered, and `facts`."""
    return {"features": "features", "cameras": "octo", "rate": "rdt", "robot": "openx2lerobot", **facts}
