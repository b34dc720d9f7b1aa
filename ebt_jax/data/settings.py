"""What a run asks of its data."""

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Literal, get_args

from ebt_jax.data.faults import OnBad
from ebt_jax.data.oxe.mixtures import MIXTURES
from ebt_jax.normalize import Mode
from ebt_jax.specs import Camera, LanguageSpec

Language = Literal["auto", "none", "embedding", "tokens"]
Weighting = Literal["given", "transitions"]
Combine = Literal["equal", "union"]


@dataclasses.dataclass(frozen=True)
class Filters:
    """What is left out of training on purpose; the defaults leave nothing out.

    Attributes:
      min_steps: episodes of fewer steps are left out.
      require_instruction: so are episodes without one at any step, of datasets that have instructions.
      require_success: so are episodes that their dataset calls failed; those it says nothing of stay.
      max_action: so are episodes in which any number of any action lies farther from 0 than this, in the normalised units of all
        training episodes; 0 is no limit.
      idle_steps: windows whose first so many actions are all idle are left out; 0 is off.
      idle_below: an action is idle where no displacement, and no change of a position or gripper, is more than this share of what
        normalises to 1.
    """

    min_steps: int = 1
    require_instruction: bool = False
    require_success: bool = False
    max_action: float = 0.0
    idle_steps: int = 0
    idle_below: float = 0.02

    def __post_init__(self) -> None:
        if self.min_steps < 1:
            raise ValueError(f"filters.min_steps must be at least 1, got {self.min_steps}.")
        if not (self.max_action >= 0 and math.isfinite(self.max_action)):
            raise ValueError(f"filters.max_action must be at least 0 (no limit), got {self.max_action}.")
        if self.idle_steps < 0 or not 0 < self.idle_below < 1:
            raise ValueError(
                f"filters.idle_steps must be at least 0 and filters.idle_below in (0, 1), got {self.idle_steps} and {self.idle_below}."
            )


NO_FILTERS = Filters()


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Which datasets, as which windows, in which numbers.

    Attributes:
      data_dir: folder (local or gs://) that holds the datasets, one folder each.
      mixture: a dataset's name, or names with weights: {"bridge_dataset": 2.0, "fractal20220817_data": 1.0}; or the name of a
        published mixture ("octo/oxe_magic_soup"), or a JSON file of names and weights ("mine.json").
      weighting: what weights mean: "given", shares of the samples; "transitions", factors of each dataset's number of steps,
        as Octo and OpenVLA publish theirs.
      combine: "equal" refuses datasets that differ in action, state, frame or control rate; "union" trains on every number that
        any of them has, masked where one lacks it, and leaves units, frames and rates as they are.
      observation_horizon: steps of history H, the current one included.
      action_horizon: chunk length h.
      image_size: height and width that every camera is resized to.
      cameras: those that the policy sees, in this order; () for none. "goal_primary" shows what the primary camera sees at a later
        step of the same episode, any of them alike.
      proprio: patterns of names, ("agent_*", "gripper"): the numbers of the robot's state that the policy sees. Simulators show where
        everything lies, which no camera's policy may be told; () shows none.
      language: "auto" takes tokens of the dataset's text where it has any, else its embedding, else nothing. A robot can be told
        text; the vectors that a dataset carries it cannot make.
      tokenizer: of the text: "" hashes words; else the folder of a published text encoder, or a policy's own language spec.
      normalization: of actions; proprio_normalization: of the robot's state.
      validation_fraction: share of the training episodes that is held out. 0 takes the dataset's own validation split.
      validation_folds: above 0, hold out one of so many equal folds in place of a fraction: `validation_fold`.
      filters: which episodes and windows are left out, see `Filters`.
      on_bad: "raise" stops at records that cannot be read or used; "skip" leaves them out, counts them and says so.
      paraphrases: a JSON file of instruction -> other wordings, of which training picks one; "" for none.
      language_dropout: share of training samples whose instruction is hidden.
      goal_dropout: share whose goal images are hidden; never where the instruction is hidden or missing.
      windows_per_visit: windows of one episode that follow each other in the order, so that one visit to a record serves them: 1
        for data on a disk, 4 to 16 where each read is dear. A power of two.
      index_processes: that build an index and take statistics; -1 is one a core where the data are large, 0 is none beside this one.
      seed: of the choice of held-out episodes, and of nothing else.
      cache_dir: for indexes; "" is beside the data where that is writable, else ~/.cache/ebt_jax.
    """

    data_dir: str
    mixture: str | Mapping[str, float]
    observation_horizon: int = 2
    action_horizon: int = 16
    image_size: int = 64
    cameras: tuple[str, ...] = ()
    language: Language = "auto"
    tokenizer: str | LanguageSpec = ""
    normalization: Mode = "quantile"
    proprio_normalization: Mode = "mean_std"
    validation_fraction: float = 0.1
    validation_folds: int = 0
    validation_fold: int = 0
    seed: int = 0
    cache_dir: str = ""
    weighting: Weighting = "given"
    combine: Combine = "equal"
    filters: Filters = NO_FILTERS
    on_bad: OnBad = "raise"
    paraphrases: str = ""
    language_dropout: float = 0.0
    goal_dropout: float = 0.0
    windows_per_visit: int = 1
    index_processes: int = -1
    proprio: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        def require(condition: bool, message: str) -> None:
            if not condition:
                raise ValueError(message)

        require(bool(self.data_dir), "data_dir must name the folder that holds the datasets, got ''.")
        require(bool(self.mixture), f"mixture must name at least one dataset, got {self.mixture!r}.")
        weights = self.weights.values()
        require(all(weight > 0 for weight in weights), f"weights of a mixture must be positive, got {dict(self.weights)}.")
        for name, words in (("weighting", Weighting), ("combine", Combine)):
            require(getattr(self, name) in get_args(words), f"{name} must be one of {get_args(words)}, got {getattr(self, name)!r}.")
        for name in ("observation_horizon", "action_horizon", "image_size"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}.")
        unknown = [camera for camera in self.cameras if camera not in get_args(Camera)]
        require(not unknown, f"cameras must be among {get_args(Camera)}, got {unknown}.")
        require(len(set(self.cameras)) == len(self.cameras), f"cameras must be distinct, got {self.cameras}.")
        require(self.language in get_args(Language), f"language must be one of {get_args(Language)}, got {self.language!r}.")
        for name in ("normalization", "proprio_normalization"):
            require(getattr(self, name) in get_args(Mode), f"{name} must be one of {get_args(Mode)}, got {getattr(self, name)!r}.")
        require(self.on_bad in get_args(OnBad), f"on_bad must be one of {get_args(OnBad)}, got {self.on_bad!r}.")
        for name in ("language_dropout", "goal_dropout"):
            require(0 <= getattr(self, name) <= 1, f"{name} must be in [0, 1], got {getattr(self, name)}.")
        require(
            self.windows_per_visit in (1, 2, 4, 8, 16, 32, 64),
            f"windows_per_visit must be a power of two from 1 to 64, got {self.windows_per_visit}.",
        )
        require(0 <= self.validation_fraction < 1, f"validation_fraction must be in [0, 1), got {self.validation_fraction}.")
        require(
            self.validation_folds != 1 and self.validation_folds >= 0,
            f"validation_folds must be 0 or at least 2, got {self.validation_folds}.",
        )
        require(
            0 <= self.validation_fold < max(self.validation_folds, 1),
            f"validation_fold must be in [0, {max(self.validation_folds, 1)}), got {self.validation_fold}.",
        )

    @functools.cached_property
    def weights(self) -> Mapping[str, float]:
        """Dataset -> weight as given, scaled to sum to 1. Raises ValueError for a mixture that nobody published or no JSON describes."""
        named = read_mixture(self.mixture) if isinstance(self.mixture, str) else self.mixture
        total = sum(named.values())
        return {name: weight / total for name, weight in named.items()}


def read_mixture(mixture: str) -> Mapping[str, float]:
    """Dataset -> weight of a published mixture, a JSON file's path, or one dataset's name. Raises ValueError for what is none of them."""
    if mixture.endswith(".json"):
        path = pathlib.Path(mixture).expanduser()
        try:
            tree = json.loads(path.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise ValueError(f"mixture must be a JSON file of names and weights, got {path}: {error}.") from error
        if not isinstance(tree, dict) or not tree or not all(isinstance(weight, int | float) for weight in tree.values()):
            raise ValueError(f'mixture must be JSON like {{"bridge_dataset": 1.0}}, got {tree!r} in {path}.')
        return {name: float(weight) for name, weight in tree.items()}
    if "/" in mixture:
        if mixture not in MIXTURES:
            raise ValueError(f"mixture must be a dataset, a JSON file or one of {sorted(MIXTURES)}, got {mixture!r}.")
        return MIXTURES[mixture]
    return {mixture: 1.0}


def bundled_sample_dir() -> str:
    """The data_dir of the small dataset that comes with the package."""
    return str(pathlib.Path(__file__).parent.parent / "sample")
