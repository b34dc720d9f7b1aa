"""An evaluation that was cut short is, gone on with, the evaluation."""

import json
import pathlib
from typing import Any

import pytest

from ebt_jax.evaluation.measured import EpisodeResult, Rollouts, join
from ebt_jax.evaluation.results import closed_loop_results
from ebt_jax.evaluation.rollouts import rollout
from ebt_jax.evaluation.unfinished import Unfinished, unfinished_path
from ebt_jax.execution import Execution
from ebt_jax.policy import Policy

CONDITIONS = {"seed": 0, "tasks": ["a"], "command": "evaluate"}


def episode(number: int, seconds: float = 0.5) -> Rollouts:
    result = EpisodeResult("a", number, 7 + number, number == 1, 0.25, 3, {"score": 1.0}, {"energy": [0.5, 0.1]})
    return Rollouts([result], [2, 2, 3], {"total": [0.125]}, 16, seconds, (f"a/{number:03d}.mp4",))


def test_cut_short_and_gone_on_with_it_is_the_same(wandering: Policy) -> None:
    def run(**how: Any) -> Rollouts:
        return rollout(wandering, "pusht", ("pusht",), 5, seed=0, execution=Execution(horizon=8), num_envs=2, num_processes=1, **how)

    kept: list[Rollouts] = []

    def stop_after_two(one: Rollouts) -> None:
        kept.append(one)
        if len(kept) == 2:
            raise KeyboardInterrupt

    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(on_episode=stop_after_two)
    rest: list[Rollouts] = []
    found = run(finished=kept, on_episode=rest.append)
    assert found.episodes == whole.episodes
    assert sorted(found.num_steps) == sorted(whole.num_steps)
    assert sorted(one.episodes[0].number for one in (*kept, *rest)) == [0, 1, 2, 3, 4]
    assert len(rest) == 3
    assert found.wall_seconds == pytest.approx(sum(one.wall_seconds for one in (*kept, *rest)))
    again = run(finished=[*kept, *rest], on_episode=rest.append)
    assert (again.episodes, len(rest)) == (whole.episodes, 3)  # nothing was left to run


def test_the_calls_of_all_episodes_are_those_of_the_rollouts(wandering: Policy) -> None:
    each: list[Rollouts] = []
    whole = rollout(wandering, "pusht", ("pusht",), 3, seed=0, execution=Execution(horizon=8), num_processes=1, on_episode=each.append)
    assert join(each, ["pusht"]) == whole
    assert len(whole.num_steps) == sum(-(-one.length // 8) for one in whole.episodes)
    assert len(whole.seconds["total"]) == max(-(-one.length // 8) for one in whole.episodes) - 1  # all at once; the first one compiles


def test_what_is_kept_comes_back_as_it_was(tmp_path: pathlib.Path) -> None:
    path = unfinished_path(tmp_path, (1, 4))
    one = Unfinished(path, CONDITIONS)
    assert one.kept == []
    for number in (1, 0):
        one.add(episode(number))
    other = Unfinished(path, {**CONDITIONS, "command": "the same, elsewhere"})
    assert other.kept == [episode(1), episode(0)]
    other.add(episode(2))
    assert len(other.kept) == 3
    other.remove()
    assert not path.exists()
    assert closed_loop_results(join(other.kept, ["a"]))["tasks"]["a"]["successes"] == 1


def test_a_line_that_a_kill_cut_short_is_run_again_and_a_double_one_counts_once(tmp_path: pathlib.Path) -> None:
    path = unfinished_path(tmp_path, None)
    one = Unfinished(path, CONDITIONS)
    for part in (episode(0, 1.0), episode(0, 2.0), episode(1)):
        one.add(part)
    path.write_text(path.read_text()[:-20])
    other = Unfinished(path, CONDITIONS)
    assert other.kept == [episode(0, 2.0)]
    other.add(episode(1))
    assert [json.loads(line)["episodes"][0]["number"] for line in path.read_text().splitlines()[1:]] == [0, 1]


@pytest.mark.parametrize(("first", "words"), [(None, "seed, worker"), ("", ""), ("not JSON", "its first line cannot be read")])
def test_under_other_conditions_all_begins_anew(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, first: str | None, words: str
) -> None:
    path = unfinished_path(tmp_path, None)
    Unfinished(path, CONDITIONS).add(episode(0))
    if first is not None:
        path.write_text("\n".join([first, *path.read_text().splitlines()[1:]]) if first else "")
    before = path.read_bytes()
    others = {**CONDITIONS, "seed": 1, "worker": "x"}
    one = Unfinished(path, others)
    assert one.kept == []
    assert words in caplog.text
    assert path.read_bytes() == before  # until the first episode: a start that is refused costs nobody's
    one.add(episode(1))
    assert json.loads(path.read_text().splitlines()[0]) == {"conditions": {key: others[key] for key in ("seed", "tasks", "worker")}}
    assert Unfinished(path, others).kept == [episode(1)]


def test_before_its_first_episode_nothing_is_there(tmp_path: pathlib.Path) -> None:
    path = unfinished_path(tmp_path, None)
    one = Unfinished(path, CONDITIONS)
    assert not path.exists()
    one.remove()
    one.add(episode(0))
    assert Unfinished(path, CONDITIONS).kept == [episode(0)]
