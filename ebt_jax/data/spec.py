"""Which feature of an RLDS folder is what: the one page a dataset needs before it becomes batches.

A folder that carries `ebt_spec.json` beside `features.json` describes itself. Values that are not yet in our conventions (SI units,
gripper 1 = open) name the conversions that bring them there. Datasets that cannot be changed are described in `data/oxe/`.
"""

import dataclasses
import fnmatch
import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from ebt_jax.specs import VIEWS, ActionDimension, Dimension

SPEC_FILE = "ebt_spec.json"

What = Literal[
    "keep",
    "scale",
    "unit_ball",
    "wrap",
    "open",
    "closed",
    "signed_open",
    "relative_closed",
    "binarize",
    "quaternion_xyzw",
    "rotation_vector_residual",
]
"""The words of a `Conversion`; `standardize.py` says what each does."""


@dataclasses.dataclass(frozen=True)
class Conversion:
    """One step from a dataset's own numbers to ours.

    Attributes:
      what: what is done.
      columns: to which numbers, counted from 0 in what the step before left.
      by: the factor of "scale" and "unit_ball".
    """

    what: What
    columns: tuple[int, ...]
    by: float = 1.0

    def __post_init__(self) -> None:
        if self.what not in get_args(What):
            raise ValueError(f"a conversion must be one of {get_args(What)}, got {self.what!r}.")
        needed = {"quaternion_xyzw": 4, "rotation_vector_residual": 6}.get(self.what, max(len(self.columns), 1))
        if len(self.columns) != needed or min(self.columns) < 0:
            raise ValueError(f"conversion {self.what!r} must name {needed} columns of 0 or more, got {self.columns}.")
        if len(set(self.columns)) != len(self.columns) and self.what != "keep":
            raise ValueError(f"conversion {self.what!r} must name each column once, got {self.columns}.")
        if self.what == "scale" and self.by == 1:
            raise ValueError(f"conversion 'scale' must have a factor `by` other than 1, got {self.by} for columns {self.columns}.")


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """Names, units and places of what a dataset holds. Every key is a path inside a step, as features.json spells it.

    Attributes:
      name: the dataset's name, that of its folder.
      action_keys: features that hold the action, joined in this order; a scalar or bool counts as one number.
      action: what each number of the action means once it is joined and converted.
      proprio_keys: features that hold the robot's state, joined likewise; () where there is none.
      proprio: what each number of the state means once it is joined and converted.
      cameras: our camera -> its image feature, {"primary": "observation/image_0"}; {} for a state-only dataset.
      language_key: the instruction, text or the codes of its characters padded with 0; "" where there is none.
      paraphrase_keys: other wordings of it, text; an empty one counts as none.
      success_key: the feature beside the steps that says whether the episode succeeded: a number, or a text with "success" in it.
      embedding_key: the instruction's embedding; "" where there is none.
      embedding_size: its width e; 0 where there is none.
      action_frame: what end-effector numbers are relative to ("base", "world", "tool"), "unknown" where no source tells.
      control_rate_hz: actions a second; None where no source states it.
      source: where the data and these facts come from.
      action_conversions: from the joined action to `action`, in order; () where its numbers are ours already.
      proprio_conversions: likewise for the state.
    """

    name: str
    action_keys: tuple[str, ...]
    action: tuple[ActionDimension, ...]
    proprio_keys: tuple[str, ...] = ()
    proprio: tuple[Dimension, ...] = ()
    cameras: Mapping[str, str] = dataclasses.field(default_factory=dict)
    language_key: str = ""
    embedding_key: str = ""
    embedding_size: int = 0
    action_frame: str = "unknown"
    control_rate_hz: float | None = None
    source: str = ""
    action_conversions: tuple[Conversion, ...] = ()
    proprio_conversions: tuple[Conversion, ...] = ()
    paraphrase_keys: tuple[str, ...] = ()
    success_key: str = ""

    def __post_init__(self) -> None:
        def require(condition: bool, message: str) -> None:
            if not condition:
                raise ValueError(f"{message} Correct the spec of dataset {self.name!r}.")

        require(bool(self.name), "name must not be empty, got ''.")
        require(bool(self.action_keys) and bool(self.action), f"action_keys and action must not be empty, got {self.action_keys}.")
        require(
            bool(self.proprio_keys) == bool(self.proprio),
            f"proprio_keys and proprio must both be given or both be empty, got {self.proprio_keys} and {self.proprio}.",
        )
        unknown = sorted(set(self.cameras) - set(VIEWS))
        require(not unknown, f"cameras must be among {VIEWS}, got {unknown}.")
        require(bool(self.language_key) or not self.paraphrase_keys, "paraphrase_keys must stand beside a language_key, got none.")
        keys = (*self.action_keys, *self.proprio_keys, *self.cameras.values(), *self.paraphrase_keys)
        require(all(keys), f"feature keys must not be empty, got {keys}.")
        require(
            bool(self.embedding_key) == (self.embedding_size > 0),
            f"embedding_key and embedding_size must both be given or both be empty, got {self.embedding_key!r} and {self.embedding_size}.",
        )
        for part, dimensions in (("action", self.action), ("proprio", self.proprio)):
            names = [dimension.name for dimension in dimensions]
            require(len(set(names)) == len(names), f"{part} dimensions must have distinct names, got {names}.")

    def show(self, patterns: Iterable[str]) -> "DatasetSpec":
        """Of the state only the numbers whose names match a pattern ("agent_*"), in the dataset's order; the rest is never read."""
        chosen = tuple(patterns)
        columns = tuple(i for i, one in enumerate(self.proprio) if any(fnmatch.fnmatchcase(one.name, pattern) for pattern in chosen))
        if len(columns) == len(self.proprio):
            return self
        if not columns:
            return dataclasses.replace(self, proprio_keys=(), proprio=(), proprio_conversions=())
        kept = (*self.proprio_conversions, Conversion("keep", columns))
        return dataclasses.replace(self, proprio=tuple(self.proprio[i] for i in columns), proprio_conversions=kept)

    def to_json(self) -> str:
        """The text of `ebt_spec.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "DatasetSpec":
        """Inverse of `to_json`. Raises ValueError for text that is no spec, naming the missing or unknown field."""
        try:
            tree = json.loads(text)
            return cls(
                **{
                    **tree,
                    "action_keys": tuple(tree["action_keys"]),
                    "action": tuple(ActionDimension(**dimension) for dimension in tree["action"]),
                    "proprio_keys": tuple(tree.get("proprio_keys", ())),
                    "proprio": tuple(Dimension(**dimension) for dimension in tree.get("proprio", ())),
                    "paraphrase_keys": tuple(tree.get("paraphrase_keys", ())),
                    "action_conversions": _conversions(tree.get("action_conversions", ())),
                    "proprio_conversions": _conversions(tree.get("proprio_conversions", ())),
                }
            )
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{SPEC_FILE} must be JSON as `DatasetSpec.to_json` writes it, got a fault at {error}.") from error


def _conversions(trees: Iterable[Mapping[str, Any]]) -> tuple[Conversion, ...]:
    return tuple(Conversion(**{**tree, "columns": tuple(tree["columns"])}) for tree in trees)
