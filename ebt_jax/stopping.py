"""When a descent has gone far enough: one rule a number, whichever holds first, and a cap."""

import dataclasses
import math

CAPACITY = 64
"""Steps that the trace of a stopped descent has room for: the largest cap."""


@dataclasses.dataclass(frozen=True)
class Stopping:
    """A sample rests at the first look where one of these holds; it takes no step there. Each sample rests by itself.

    Attributes:
      max_steps: steps at most.
      min_gradient: rest where |dE/da| over the whole chunk is smaller; in units of E per normalised action. 0 never holds.
      min_energy_drop: rest where the step before lowered E by less; 0 rests as soon as a step went up. -inf never holds.
      min_step_length: rest where the next step would move the chunk by less, in root mean square per entry (normalised). 0 never holds.
    """

    max_steps: int = 16
    min_gradient: float = 0.0
    min_energy_drop: float = -math.inf
    min_step_length: float = 0.0

    def __post_init__(self) -> None:
        for name, holds, rule in (
            ("max_steps", 1 <= self.max_steps <= CAPACITY, f"lie in [1, {CAPACITY}]"),
            ("min_gradient", self.min_gradient >= 0, "be at least 0"),
            ("min_energy_drop", not math.isnan(self.min_energy_drop), "be a number"),
            ("min_step_length", self.min_step_length >= 0, "be at least 0"),
        ):
            if not holds:
                raise ValueError(f"stopping.{name} must {rule}, got {getattr(self, name)}.")
