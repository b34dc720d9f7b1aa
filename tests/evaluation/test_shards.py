"""Parts of an evaluation put together are the evaluation."""

import json
import pathlib
import shutil

import pytest

import ebt_jax
from ebt_jax.artifact import export_policy
from ebt_jax.evaluation import results
from ebt_jax.evaluation.measured import EpisodeResult, Rollouts
from ebt_jax.evaluation.results import closed_loop_results
from ebt_jax.evaluation.rollouts import Asking, rollout
from ebt_jax.evaluation.shards import merge_shards, parse_shard, write_shard
from ebt_jax.execution import Execution
from ebt_jax.policy import Policy
from ebt_jax.report.evaluation import write_evaluation_report
from ebt_jax.stopping import Stopping

ABOUT = {
    "suite": "metaworld",
    "seed": 0,
    "execution": {},
    "asking": {},
    "disturbance": {},
    "tasks": ["reach-v3"],
    "episodes": 3,
    "versions": {},
    "git": "a",
    "sources": "b",
    "renderer": "disable",
    "hardware": {"cpu": "one"},
    "command": "evaluate",
}


def about(**changes) -> dict:
    return {**ABOUT, "policy": {"sha256": "0"}, **changes}


def merged_about(workers: int, **changes) -> dict:
    """Without `machines`."""
    each = {"hardware": [ABOUT["hardware"]] * workers, "command": [ABOUT["command"]] * workers}
    return {**about(**changes), **each, "mixed_hardware": False}


def reach(policy: Policy, **how) -> Rollouts:
    return rollout(policy, "metaworld", ("reach-v3",), 3, seed=0, num_processes=1, **how)


def test_parts_come_back_in_the_order_of_one_evaluation(tmp_path: pathlib.Path) -> None:
    tasks = ["b", "a"]
    doubt = {"gradient_norm": [0.5, 1.0]}
    episodes = [EpisodeResult(task, n, 100 + n, n % 2 == 0, 1.0 * n, 7, {"score": 0.5}, doubt) for task in tasks for n in range(5)]
    whole = Rollouts(episodes, [1, 2, 3] * 5, {"total": [0.1, 0.2]}, 16, 3.0, ("a/000.mp4", "b/000.mp4"))
    for i in range(3):
        films = whole.films[::-1][i : i + 1]
        part = Rollouts(episodes[i::3], whole.num_steps[i::3], {"total": [0.1, 0.2][i : i + 1]}, 16, 1.0 + i, films)
        write_shard(tmp_path, (i, 3), about(tasks=tasks, episodes=5), part)
    conditions, merged = merge_shards(tmp_path)
    (machine,) = conditions.pop("machines")
    assert machine == {"workers": [0, 1, 2], "latency_ms": closed_loop_results(whole)["latency_ms"]}
    assert conditions == merged_about(3, tasks=tasks, episodes=5)
    assert merged._replace(num_steps=sorted(merged.num_steps)) == whole._replace(num_steps=sorted(whole.num_steps))
    assert closed_loop_results(merged) == closed_loop_results(whole)
    (tmp_path / "shards" / "0-of-3.json").write_text((tmp_path / "shards" / "1-of-3.json").read_text())
    with pytest.raises(ValueError, match=r"0-of-3 must hold 4 episodes, .*got 3 that are not those. Was a file renamed"):
        merge_shards(tmp_path)


@pytest.mark.slow
def test_the_parts_merge_into_the_whole(reaching: Policy, tmp_path: pathlib.Path) -> None:
    whole = reach(reaching)
    for i in range(2):
        write_shard(tmp_path, (i, 2), about(), reach(reaching, shard=(i, 2)))
    conditions, merged = merge_shards(tmp_path)
    conditions.pop("machines")
    assert conditions == merged_about(2)
    assert merged.episodes == whole.episodes
    one, other = (closed_loop_results(rollouts) for rollouts in (whole, merged))
    assert one["tasks"] == other["tasks"]
    assert one["sample_steps"] == other["sample_steps"]
    assert other["episodes_per_second"] == pytest.approx(3 / merged.wall_seconds)


@pytest.mark.slow
def test_averaging_overlapping_chunks_reaches_the_goal_too(reaching: Policy) -> None:
    assert all(episode.success for episode in reach(reaching, execution=Execution("ensemble", 2)).episodes)


def test_what_a_method_without_descent_cannot_do_is_refused(reaching: Policy) -> None:
    with pytest.raises(ValueError, match="warm_start must be asked of a policy that descends"):
        reach(reaching, execution=Execution("realtime", 2, committed=1))


def test_latencies_of_different_machines_are_not_pooled(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    fast, slow = {"cpu": "fast"}, {"cpu": "slow"}
    for i, (hardware, seconds) in enumerate([(fast, 0.001), (slow, 0.1), (fast, 0.003)]):
        part = Rollouts([EpisodeResult("reach-v3", i, i, True, 1.0, 7, {}, {})], [2], {"total": [seconds]}, 16, 1.0)
        write_shard(tmp_path, (i, 3), about(hardware=hardware, command=f"worker {i}"), part)
    conditions, merged = merge_shards(tmp_path)
    assert conditions["mixed_hardware"] is True
    assert "2 kinds of machine" in caplog.text
    assert (conditions["hardware"], conditions["command"]) == ([fast, slow, fast], ["worker 0", "worker 1", "worker 2"])
    assert [machine["workers"] for machine in conditions["machines"]] == [[0, 2], [1]]
    assert [machine["latency_ms"]["total"]["p50"] for machine in conditions["machines"]] == pytest.approx([2.0, 100.0])
    whole = {**conditions, **closed_loop_results(merged)}
    assert whole["latency_ms"]["total"]["p50"] is None
    (tmp_path / "results.json").write_text(json.dumps(whole))
    page = write_evaluation_report(tmp_path).read_text()
    assert all(words in page for words in ("ms, workers 0, 2", "ms, workers 1", "worker 1 cpu", "worker 0\nworker 1\nworker 2"))


def test_code_is_known_by_its_files(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Without a repository, too; names and content count, nothing else does."""

    def hashed(name: str, text: str) -> str:
        folder = tmp_path / "package" / "evaluation"
        folder.mkdir(parents=True)
        (folder / name).write_text(text)
        (folder / "notes.txt").write_text(name + text)
        monkeypatch.setattr(results, "__file__", str(folder / "results.py"))
        found = results.sources_sha256.__wrapped__()
        shutil.rmtree(tmp_path / "package")
        return found

    one = hashed("a.py", "x = 1")
    assert one == hashed("a.py", "x = 1")
    assert len({one, hashed("a.py", "x = 2"), hashed("b.py", "x = 1")}) == 3


def test_missing_and_foreign_parts_are_named(tmp_path: pathlib.Path) -> None:
    empty = Rollouts([], [], {}, 16, 1.0)
    with pytest.raises(ValueError, match="must hold the parts of one evaluation, got none"):
        merge_shards(tmp_path)
    write_shard(tmp_path, (0, 2), about(), empty)
    with pytest.raises(ValueError, match=r"got none of \['1-of-2'\]. Run --worker=1/2"):
        merge_shards(tmp_path)
    write_shard(tmp_path, (1, 2), about(seed=1, git="b", sources="c", renderer="egl", policy={"sha256": "1"}), empty)
    with pytest.raises(ValueError, match=r"got other \['seed', 'git', 'sources', 'renderer', 'policy.sha256'\] in 1-of-2"):
        merge_shards(tmp_path)
    write_shard(tmp_path, (0, 3), about(), empty)
    with pytest.raises(ValueError, match="the parts of one evaluation"):
        merge_shards(tmp_path)


def test_shards_are_written_as_i_of_n() -> None:
    assert parse_shard("2/8") == (2, 8)
    for wrong in ("8/8", "1", "-1/2", "a/b"):
        with pytest.raises(ValueError, match="worker must be i/N"):
            parse_shard(wrong)


def test_a_part_is_plain_json(tmp_path: pathlib.Path) -> None:
    path = write_shard(tmp_path, (0, 1), about(), Rollouts([], [2, 2], {"total": [0.1]}, 16, 1.0))
    assert json.loads(path.read_text())["rollouts"]["num_steps"] == [2, 2]


@pytest.mark.slow
def test_an_artifact_is_evaluated_as_its_checkpoint_is_episode_by_episode(tiny_run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    checkpoint = ebt_jax.load(tiny_run)
    artifact = ebt_jax.load(export_policy(checkpoint, tmp_path / "artifact", ["cpu"]))
    assert artifact.identity._replace(path="") == checkpoint.identity._replace(path="")
    for how in ({}, {"execution": Execution("realtime", 2, committed=1), "asking": Asking(stopping=Stopping(4, min_step_length=0.05))}):
        one, other = (rollout(policy, "metaworld", ("pick-place-v3",), 2, seed=0, **how) for policy in (checkpoint, artifact))
        assert one.episodes == other.episodes
        assert one.num_steps == other.num_steps
