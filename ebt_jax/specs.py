"""What an observation and an action mean: names, shapes, units, frames, gripper sign, control rate.

Specs are data. The loader makes them, the checkpoint keeps them, and the policy, the server and the simulators read the
same objects, so that a policy meets only the robots whose numbers it was trained on.
"""

import dataclasses
import json
from typing import Any, Literal, get_args

ActionKind = Literal["eef_delta", "eef_absolute", "joint_position", "joint_delta", "gripper"]
Camera = Literal["primary", "secondary", "wrist", "goal_primary", "goal_secondary", "goal_wrist"]
LanguageKind = Literal["none", "embedding", "tokens"]
Tokenizer = Literal["words", "wordpiece", "unigram"]

GOAL = "goal_"
"""Before a camera's name: what it is to see once the task is done, shown at the newest step and masked at those before."""

VIEWS = tuple(camera for camera in get_args(Camera) if not camera.startswith(GOAL))
"""Cameras that a robot has."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One number of the robot's state: `Dimension("gripper_x", "m")`; unit "" where none applies, "unknown" where no source tells."""

    name: str
    unit: str


@dataclasses.dataclass(frozen=True)
class ActionDimension:
    """One number of an action, in robot units.

    Attributes:
      kind: what the number commands; a gripper is 1 = open, 0 = closed, absolute.
      unit: SI where the robot has one ("m", "rad"), "px" in the plane of a picture, "" for the gripper.
      low, high: hard limits in `unit`; the policy never leaves them. None where the robot states none.
    """

    name: str
    kind: ActionKind
    unit: str
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        _require(
            self.kind in get_args(ActionKind), f"kind of action {self.name!r} must be one of {get_args(ActionKind)}, got {self.kind!r}."
        )
        if self.low is not None and self.high is not None:
            _require(self.low < self.high, f"limits of action {self.name!r} must satisfy low < high, got {self.low} and {self.high}.")
        if self.kind == "gripper":
            _require(
                (self.low, self.high) == (0.0, 1.0),
                f"gripper {self.name!r} must range from 0 (closed) to 1 (open), got {self.low} to {self.high}.",
            )


@dataclasses.dataclass(frozen=True)
class CameraSpec:
    """A camera as the model sees it: uint8 [height, width, 3] after resizing."""

    name: Camera
    height: int
    width: int

    def __post_init__(self) -> None:
        _require(self.name in get_args(Camera), f"camera name must be one of {get_args(Camera)}, got {self.name!r}.")
        _require(self.height > 0 and self.width > 0, f"size of camera {self.name!r} must be positive, got {self.height} x {self.width}.")


@dataclasses.dataclass(frozen=True)
class LanguageSpec:
    """How the instruction arrives.

    Attributes:
      kind: "embedding" (float vectors that the dataset carries), "tokens" (ids from `ebt_jax.text.tokenize`) or "none".
      length: tokens l.
      size: embedding width e, or number of ids.
      tokenizer: of ids: "words" hashes each word and needs no vocabulary; "wordpiece" (BERT) and "unigram" (T5) have one.
      vocabulary: their pieces, one a line, the n-th of id n; for "unigram" a tab and its log-probability follow. It travels with
        the specs, so that a robot needs no other file to understand what it is told.
    """

    kind: LanguageKind = "none"
    length: int = 0
    size: int = 0
    tokenizer: Tokenizer = "words"
    vocabulary: str = dataclasses.field(default="", repr=False)

    def __post_init__(self) -> None:
        _require(self.kind in get_args(LanguageKind), f"language kind must be one of {get_args(LanguageKind)}, got {self.kind!r}.")
        empty = self.length == 0 and self.size == 0
        _require(
            empty if self.kind == "none" else self.length > 0 and self.size > 0,
            f"language of kind {self.kind!r} must have {'no' if self.kind == 'none' else 'a positive'} length and size, "
            f"got {self.length} and {self.size}.",
        )
        _require(self.tokenizer in get_args(Tokenizer), f"tokenizer must be one of {get_args(Tokenizer)}, got {self.tokenizer!r}.")
        pieces, expected = len(self.vocabulary.split("\n")) if self.vocabulary else 0, 0 if self.tokenizer == "words" else self.size
        _require(pieces == expected, f"vocabulary of tokenizer {self.tokenizer!r} must have {expected} pieces, got {pieces}.")


@dataclasses.dataclass(frozen=True)
class ObservationSpec:
    """Everything a policy reads, over `horizon` steps, the newest last."""

    cameras: tuple[CameraSpec, ...]
    proprio: tuple[Dimension, ...]
    language: LanguageSpec
    horizon: int

    def __post_init__(self) -> None:
        names = [camera.name for camera in self.cameras]
        _require(len(set(names)) == len(names), f"cameras must have distinct names, got {names}.")
        _require(self.horizon >= 1, f"observation horizon must be at least 1, got {self.horizon}.")


@dataclasses.dataclass(frozen=True)
class ActionSpec:
    """A chunk of `horizon` actions at `control_rate_hz`; `frame` names what the end-effector numbers are relative to.

    `control_rate_hz` is None where no source states it, `frame` is "unknown" likewise.
    """

    dimensions: tuple[ActionDimension, ...]
    frame: str
    horizon: int
    control_rate_hz: float | None = None

    def __post_init__(self) -> None:
        _require(len(self.dimensions) > 0, "an action must have at least one dimension, got none.")
        _require(self.horizon >= 1, f"action horizon must be at least 1, got {self.horizon}.")
        rate = self.control_rate_hz
        _require(rate is None or rate > 0, f"control_rate_hz must be positive or None, got {rate}.")


@dataclasses.dataclass(frozen=True)
class Specs:
    """The contract between data, policy and robot; `specs.json` of a checkpoint."""

    observation: ObservationSpec
    action: ActionSpec

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Specs":
        """Inverse of `to_json`. Raises ValueError for text that is no specs, naming the missing or unknown field."""
        try:
            tree = json.loads(text)
            observation, action = tree["observation"], tree["action"]
            return cls(
                ObservationSpec(
                    cameras=tuple(CameraSpec(**camera) for camera in observation["cameras"]),
                    proprio=tuple(Dimension(**dimension) for dimension in observation["proprio"]),
                    language=LanguageSpec(**observation["language"]),
                    horizon=observation["horizon"],
                ),
                ActionSpec(**{**action, "dimensions": tuple(ActionDimension(**d) for d in action["dimensions"])}),
            )
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"specs must be JSON as `Specs.to_json` writes it, got a fault at {error}. Was the file edited by hand?"
            ) from error


def differences(policy: Specs, other: Specs) -> list[str]:
    """Every point in which a robot, simulator or dataset (`other`) is not what the policy was trained on; empty if compatible.

    Cameras may be more on the other side, and may be missing there (the policy masks them); everything else must agree.
    Horizons belong to the policy alone and are not compared.
    """
    rows: list[tuple[str, Any, Any]] = [
        ("proprio", policy.observation.proprio, other.observation.proprio),
        ("action dimensions", policy.action.dimensions, other.action.dimensions),
        ("action frame", policy.action.frame, other.action.frame),
        ("control rate (Hz)", policy.action.control_rate_hz, other.action.control_rate_hz),
    ]
    found = []
    for name, expected, got in rows:
        if isinstance(expected, tuple) and len(expected) == len(got):
            found += [f"{name}[{i}]: expected {e}, got {g}" for i, (e, g) in enumerate(zip(expected, got, strict=True)) if e != g]
        elif isinstance(expected, tuple):
            found.append(f"{name}: expected {[e.name for e in expected]}, got {[g.name for g in got]}")
        elif expected != got:
            found.append(f"{name}: expected {expected}, got {got}")
    return found


def select_proprio(specs: Specs, reader: Specs) -> tuple[Specs, list[int]]:
    """What of a robot's or simulator's state a policy reads (`reader`), by name and in its order: the specs so, and the columns.

    A policy may be trained to see less than there is (`data.proprio`); what it misses is missing in the result, for `differences`.
    """
    places = {dimension.name: column for column, dimension in enumerate(specs.observation.proprio)}
    columns = [places[dimension.name] for dimension in reader.observation.proprio if dimension.name in places]
    kept = tuple(specs.observation.proprio[column] for column in columns)
    return dataclasses.replace(specs, observation=dataclasses.replace(specs.observation, proprio=kept)), columns


def check_compatible(policy: Specs, other: Specs, what: str) -> None:
    """Raises ValueError listing all `differences` where `what` (a robot, a suite, a dataset) does not fit the policy."""
    found = differences(policy, other)
    if found:
        raise ValueError(f"{what} must match the specs the policy was trained on, got {len(found)} differences:\n  " + "\n  ".join(found))
