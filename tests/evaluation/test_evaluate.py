"""The command: its files, its last line, its exit codes."""

import json
import pathlib
import signal
import subprocess
import sys
import time

from typed import outcomes

from ebt_jax.data.settings import bundled_sample_dir
from ebt_jax.stopping import Stopping

SCRIPT = """
import dataclasses
import sys
import formulas
import ebt_jax.loading
from ebt_jax import cli, evaluate
from ebt_jax.policy import Experiment
ebt_jax.loading.load = lambda path, robot: {policy}
cli.run(evaluate.main, evaluate.__doc__)
"""
PARTICULAR = """
import dataclasses, formulas
def load(path, robot):
    policy = formulas.reaching_policy()
    def sample(params, context, keys, num_steps):
        if num_steps != 2:
            raise ValueError(f"num_steps must be 2, got {num_steps}.")
        return policy.method.sample(params, context, keys, num_steps)
    return dataclasses.replace(policy, method=policy.method._replace(sample=sample))
ebt_jax.loading.load = load
"""


def command(*flags: str, policy: str = "formulas.reaching_policy()") -> list[str]:
    script = f"import sys; sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r}){SCRIPT.format(policy=policy)}"
    return [sys.executable, "-c", script, *flags]


def run(*flags: str, policy: str = "formulas.reaching_policy()") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*flags, policy=policy), capture_output=True, text=True)


def test_closed_loop_writes_results_and_ends_in_the_success_rate(tmp_path: pathlib.Path) -> None:
    done = run("--policy=formula", "--suite=metaworld", "--tasks=reach-v3", "--episodes=3", "--videos=1", f"--output={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "compiling for 16 observations at a time" in done.stderr
    lines = done.stdout.strip().splitlines()
    assert lines[-1] == "success rate 1.000 (3 of 3 episodes, 95 % interval 0.439 to 1.000)"
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["tasks"]["reach-v3"]["successes"] == 3
    assert results["execution_horizon"] == 4
    (film,) = results["videos"]
    assert film.endswith("/reach-v3/000.mp4")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.mp4")] == [film]
    assert (tmp_path / film).stat().st_size > 1000
    assert "<video" in (tmp_path / "report.html").read_text()


def test_a_disturbance_that_nobody_met_is_no_recovery(tmp_path: pathlib.Path) -> None:
    ask = ("--policy=formula", "--suite=metaworld", "--tasks=reach-v3", "--episodes=2", "--videos=0", f"--output={tmp_path}")
    done = run(*ask, "--release=5", "--disturb_at=400")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("interval 0.342 to 1.000), 0 were disturbed (0 of them succeeded)")
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["tasks"]["reach-v3"]["disturbed"] == {"episodes": 0, "successes": 0}


def test_a_task_that_has_no_result_ends_with_1_after_all_is_written(tmp_path: pathlib.Path) -> None:
    flags = ("--policy=formula", "--suite=metaworld", "--tasks=reach-v3", "--episodes=1", "--videos=0", f"--output={tmp_path}")
    done = run(*flags, policy="formulas.diverging(formulas.reaching_policy(), 0, 0, 4)")
    assert done.returncode == 1
    assert done.stdout.strip().endswith("interval 0.000 to 0.793), 1 could not go on (not_finite 1)")
    assert "got not_finite 1 in all 1 episodes of reach-v3" in done.stderr.strip().splitlines()[-1]
    assert json.loads((tmp_path / "results.json").read_text())["tasks"]["reach-v3"]["failures"] == {"not_finite": 1}


def test_an_evaluation_that_is_stopped_goes_on(tmp_path: pathlib.Path) -> None:
    flags = ("--policy=formula", "--suite=metaworld", "--tasks=reach-v3", "--episodes=12", "--videos=0", "--num_envs=1")
    whole = run(*flags, f"--output={tmp_path / 'whole'}")
    kept = tmp_path / "stopped" / "unfinished.jsonl"
    with subprocess.Popen(command(*flags, f"--output={tmp_path / 'stopped'}"), stderr=subprocess.PIPE, text=True) as first:
        while not kept.exists() or len(kept.read_text().splitlines()) < 3:
            assert first.poll() is None
            time.sleep(0.01)
        first.send_signal(signal.SIGTERM)
        _, said = first.communicate()
    assert first.returncode == 75
    number = len(kept.read_text().splitlines()) - 1
    assert said.strip().splitlines()[-1] == f"interrupted: {number} episodes are in {kept}; start the same command again to go on"
    done = run(*flags, f"--output={tmp_path / 'stopped'}")
    assert f"going on with {kept}: {number} episodes are finished" in done.stderr
    assert done.stdout == whole.stdout
    one, other = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "stopped"))
    assert one["tasks"] == other["tasks"]
    assert one["sample_steps"] == other["sample_steps"]
    assert not kept.exists()


def test_an_evaluation_that_is_stopped_changes_no_film_that_older_results_name(tmp_path: pathlib.Path) -> None:
    ask = ("--policy=formula", "--suite=metaworld", "--tasks=reach-v3", "--videos=1", "--num_envs=1", f"--output={tmp_path}")
    assert run(*ask, "--episodes=1").returncode == 0
    (old,) = json.loads((tmp_path / "results.json").read_text())["videos"]
    before, mine = (tmp_path / old).read_bytes(), tmp_path / "videos" / "mine" / "000.mp4"
    mine.parent.mkdir()
    mine.write_bytes(before)
    others = (*ask, "--episodes=6", "--release=4")
    with subprocess.Popen(command(*others), stderr=subprocess.PIPE, text=True) as second:
        while not (tmp_path / "unfinished.jsonl").exists():
            assert second.poll() is None
            time.sleep(0.01)
        second.send_signal(signal.SIGTERM)
        second.communicate()
    assert second.returncode == 75
    assert json.loads((tmp_path / "results.json").read_text())["videos"] == [old]
    assert (tmp_path / old).read_bytes() == before
    assert run(*others).returncode == 0
    (new,) = json.loads((tmp_path / "results.json").read_text())["videos"]
    assert new != old
    assert sorted(tmp_path.rglob("*.mp4")) == sorted([tmp_path / new, mine])  # old films go, and nothing else does


def test_open_loop_measures_what_the_run_held_out_and_says_so(tmp_path: pathlib.Path) -> None:
    sample = "metaworld_pick_place_v3"
    held_out = {"validation_fraction": 0.0, "validation_folds": 20, "validation_fold": 0, "seed": 0}
    ask = ("--policy=formula", "--suite=dataset", f"--data_dir={bundled_sample_dir()}", f"--tasks={sample}", f"--output={tmp_path}")
    policy = f"formulas.constant_policy([0.0] * 4, Experiment(({sample!r},), {held_out}, {{'suite': ''}}))"
    done = run(*ask, "--split=validation", policy=policy)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("of the mean action's (mean squared), episodes held out of the policy's training")
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["split"] == "validation"
    assert results["tasks"][sample]["trained_on"] is False
    assert len(results["tasks"][sample]["episode"]) == results["tasks"][sample]["episodes"] == 5
    assert "not trained on" in (tmp_path / "report.html").read_text()


def test_without_a_suite_the_evaluation_is_that_of_the_config(tmp_path: pathlib.Path) -> None:
    own = {"suite": "metaworld", "tasks": ["reach-v3"], "episodes": 2, "seed": 5}
    ask, policy = (
        ("--policy=formula", "--videos=0", f"--output={tmp_path}"),
        "dataclasses.replace(formulas.reaching_policy(), experiment={})",
    )
    done = run(*ask, "--episodes=1", policy=policy.format(f"Experiment((), {{}}, {own})"))
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["suite"], results["seed"], list(results["tasks"])) == ("metaworld", 5, ["reach-v3"])
    assert [one["seed"] for one in results["tasks"]["reach-v3"]["episode"]] == [5_100_000]
    assert (results["renderer"], len(results["sources"])) == ("disable", 64)
    done = run(*ask, policy=policy.format(f"Experiment((), {{}}, {own | {'suite': ''}})"))
    assert done.returncode == 2
    assert "--suite must be given for a policy whose run had none" in done.stderr


def test_wrong_usage_ends_with_2_before_anything_is_loaded(tmp_path: pathlib.Path) -> None:
    """Also what would be wrong only hours later: a cap that every worker times for itself, doubt in another answer than is executed."""
    ask = ("--policy=formula", "--suite=metaworld", "--tasks=reach-v3", f"--output={tmp_path}")
    wrong = (
        (("--tasks=reach-v2",), "got reach-v2"),
        (("--suite=dataset",), "--data_dir"),
        (("--worker=0/2", "--budget_ms=50"), "--budget_ms must not go with --worker"),
        (("--doubt", "--sample_steps=4", "--execution=realtime"), "got --sample_steps and --execution=realtime"),
        (("--sample_steps=4", "--max_steps=4"), "--sample_steps must not go with --max_steps: their cap takes its place"),
        (("--ensemble_decay=0.1",), "--ensemble_decay must be of --execution=ensemble, got --execution=receding"),
        (("--suite=dataset", "--data_dir=.", "--max_steps=4"), "--max_steps must be of a closed loop, got --suite=dataset"),
        (("--committed=2",), "execution.committed must be 0 unless execution.kind is 'realtime', got 2 for 'receding'"),
        (("--execution=realtime", "--execution_horizon=2", "--committed=3"), "must lie in [0, execution.horizon = 2], got 3"),
        (("--max_steps=100",), "--max_steps"),
        (("--stop_gradient=nan",), "stopping.min_gradient must be at least 0, got nan"),
        (("--num_envs=17",), "--num_envs"),
        (("--worker=0/2", "--videos=3"), "--videos must not go with --worker, which films nothing, got 3"),
        (("--merge", "--seed=1"), "--policy and --suite and --tasks and --seed must not go with --merge"),
    )
    *refused, loaded = outcomes("evaluate", [*((*ask, *flags) for flags, _ in wrong), ask])
    for (flags, words), (code, said) in zip(wrong, refused, strict=True):
        assert (code, words in said, "loaded" in said) == (2, True, False), (flags, said)
    assert loaded[0] == 3


def test_what_a_policy_cannot_be_asked_is_wrong_usage(tmp_path: pathlib.Path) -> None:
    ask = ("--policy=formula", "--suite=metaworld", "--tasks=reach-v3", "--episodes=2", f"--output={tmp_path}")
    wrong = (
        (("--execution_horizon=9",), "execution_horizon must be in [1, 8] (the chunk, less what is committed), got 9"),
        (("--max_steps=4",), "stopping must be asked of a policy that descends"),
        (("--execution=realtime",), "warm_start must be asked of a policy that descends"),
        (("--worker=3/4",), "--worker must be of at most the 2 episodes, got 3/4"),
        (("--sample_steps=3",), "--sample_steps: num_steps must be 2, got 3"),
        (("--release=5", "--disturb_at=500"), "less than 500, the steps of this suite's episodes, got 500"),
    )
    found = outcomes("evaluate", [(*ask, *flags) for flags, _ in wrong], prepare=PARTICULAR)
    for (flags, words), (code, said) in zip(wrong, found, strict=True):
        assert (code, words in said) == (2, True), (flags, said)


def test_a_cap_is_a_cap_without_any_rule(tmp_path: pathlib.Path) -> None:
    script = f"from absl import flags; from ebt_jax import evaluate; flags.FLAGS(['', '--output={tmp_path}', *{{}}]); "
    script += "print(evaluate._stopping(None, 16))"
    for given, wanted in ((["--max_steps=6"], str(Stopping(6))), (["--nodoubt"], "None")):
        done = subprocess.run([sys.executable, "-c", script.format(given)], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == wanted


def test_results_are_written_where_nothing_can_draw_them(tmp_path: pathlib.Path) -> None:
    """On a farm's machine, which has no matplotlib."""
    script = "import sys; sys.modules['matplotlib'] = None; import pathlib; from ebt_jax import evaluate; "
    script += f"evaluate._write(pathlib.Path({str(tmp_path)!r}), {{'suite': 'metaworld'}}, 'success rate 1.000')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "report.html is left out: No module named 'matplotlib.figure'" in done.stderr
    assert done.stdout == "success rate 1.000\n"
    assert json.loads((tmp_path / "results.json").read_text()) == {"suite": "metaworld"}


def test_results_that_find_no_room_leave_the_earlier_ones(tmp_path: pathlib.Path) -> None:
    """A real refusal: no file of the process may grow beyond 100 bytes."""
    (tmp_path / "results.json").write_text('{"suite": "metaworld"}')
    script = "import pathlib, resource; from ebt_jax import evaluate; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); "
    script += f"evaluate._write(pathlib.Path({str(tmp_path)!r}), {{'suite': 'x' * 200}}, '')"
    done = subprocess.run([sys.executable, "-B", "-c", script], capture_output=True, text=True)
    assert "File too large" in done.stderr
    assert json.loads((tmp_path / "results.json").read_text()) == {"suite": "metaworld"}


def test_a_policy_for_another_robot_ends_with_1_and_the_differences(tmp_path: pathlib.Path) -> None:
    done = run("--policy=formula", "--suite=pusht", "--episodes=1", f"--output={tmp_path}")
    assert done.returncode == 1
    assert "suite 'pusht' must match the specs" in done.stderr
    assert "Traceback" not in done.stderr
