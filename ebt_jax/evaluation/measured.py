"""What rollouts measure: episodes and calls of the policy, in parts that add up."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class EpisodeResult(NamedTuple):
    """One episode: `state` is its initial state, `total` the sum of rewards, `metrics` what the simulator measures besides.

    `doubt` is what was noted at each decision, name -> values. `jitter`: see `rollouts.mean_second_difference`. `failure`: why it could
    not go on, one of the words of `rollouts`, and then it is no success; "" for an episode that ended as the task has it.
    """

    task: str
    number: int
    state: int
    success: bool
    total: float
    length: int
    metrics: dict[str, float]
    doubt: dict[str, list[float]]
    jitter: float = 0.0
    failure: str = ""


class Rollouts(NamedTuple):
    """Everything that was measured.

    Attributes:
      episodes: in order of task and number.
      num_steps: sampler steps of every chunk.
      seconds: stage -> wall time of every call of `batch_size` rows, the first (compiling) one apart.
      wall_seconds: from the first episode's beginning to the last one's end, the first call apart.
      films: what was filmed, TASK/NUMBER.mp4 each, in order of name.
    """

    episodes: list[EpisodeResult]
    num_steps: list[int]
    seconds: dict[str, list[float]]
    batch_size: int
    wall_seconds: float
    films: tuple[str, ...] = ()

    def to_tree(self) -> dict[str, Any]:
        """As plain JSON; `from_tree` reads it."""
        return {**self._asdict(), "episodes": [episode._asdict() for episode in self.episodes]}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> "Rollouts":
        """The inverse of `to_tree`. Raises KeyError or TypeError for anything else."""
        episodes = [EpisodeResult(**episode) for episode in tree["episodes"]]
        return cls(**{**tree, "episodes": episodes, "films": tuple(tree["films"])})


def join(parts: Sequence[Rollouts], tasks: Sequence[str]) -> Rollouts:
    """Parts of one evaluation, at least one, that ran one after the other; episodes in the order of `tasks` and number."""
    place = {task: i for i, task in enumerate(tasks)}
    stages = sorted({stage for part in parts for stage in part.seconds})
    return Rollouts(
        episodes=sorted((e for part in parts for e in part.episodes), key=lambda e: (place[e.task], e.number)),
        num_steps=[steps for part in parts for steps in part.num_steps],
        seconds={stage: [second for part in parts for second in part.seconds.get(stage, ())] for stage in stages},
        batch_size=parts[0].batch_size,
        wall_seconds=sum(part.wall_seconds for part in parts),
        films=tuple(sorted(film for part in parts for film in part.films)),
    )
