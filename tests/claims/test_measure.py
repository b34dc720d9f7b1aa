"""One really tiny cell from end to end, killed on the way: nothing that was done is done again."""

import json
import shutil
import types

import numpy as np
import pytest
from made_up import small, write_settings
from tiny_cells import demonstrated, shrink, tiny

from benchmarks.claims import latency, rollouts
from benchmarks.claims import measure as module
from benchmarks.claims.cells import enumerate_cells, evaluation_seed, initial_states, parts, run_path
from benchmarks.claims.demonstrations import ARCHIVE
from benchmarks.claims.measure import Folders, finished, measure
from benchmarks.claims.provenance import COMMIT
from benchmarks.claims.recipe import recipe
from benchmarks.claims.render import render
from benchmarks.claims.rollouts import asked, columns
from benchmarks.claims.settings import Sampler
from benchmarks.claims.store import locked, write_json
from ebt_jax import cli
from ebt_jax.data.pusht import pusht_zarr
from ebt_jax.data.write import write_rlds
from ebt_jax.evaluation.measured import EpisodeResult
from ebt_jax.evaluation.rollouts import Asking, mean_second_difference
from ebt_jax.loading import load
from ebt_jax.policy import NotFiniteError, PolicyOutput
from ebt_jax.stopping import Stopping


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "name", "change"),
    [
        ("published", "pusht-90", {"demonstrations": 0}),
        ("full", "pusht-pixels", {}),
        ("breadth", "ten-tasks", {"task": ["reach-v3", "drawer-open-v3"], "demonstrations": 1}),
        ("published", "stick-push-10", {"task": "reach-v3", "demonstrations": 1, "checkpoints": 5}),
    ],
)
def test_cells_of_published_states_cameras_and_words(scale, name, change, test_data, tmp_path):
    """Every suite that is more than one task's numbers, from its own demonstrations to its JSON."""

    def alone(tree):
        found = tree["scales"][scale]
        shrink(found)
        suite = {**found["suites"][name], **change, "phases": ["development"], "budgets": [1], "seeds": 1, "episodes": {"development": 2}}
        if suite["config"].pop("batch_size", None):  # frames cost more than a tiny budget buys
            found["core_minute"] = 2e10
            suite["config"]["model"] |= {"vision": "resnet_small", "vision_width": 8}
        found["config"]["model"]["encoder_layers"] = 1
        tree["scales"] = {scale: {**found, "suites": {name: suite}, "contestants": ["flow"]}}
        tree["comparisons"] = tree["primary"] = [["flow/2", "flow/10"]]
        tree["contestants"]["flow"]["samplers"] = {"2": 2, "10": 10}

    settings = write_settings(tmp_path, alone)
    folders = Folders(tmp_path / "results", tmp_path / "runs", tmp_path / "data", test_data)
    if name.startswith("pusht"):
        people = pusht_zarr(str(test_data / ARCHIVE)).select(range(3))
        write_rlds(tmp_path / "data", people.spec, people.episodes, people.description)
    (cell,) = enumerate_cells(settings, "development", scale)
    tree = json.loads(measure(folders, settings, cell, cli.progress).read_text())
    told = tree["samplers"]["2"]["episodes"]
    assert told["state"] == initial_states(settings, cell)
    assert all(len(values) == len(told["state"]) for values in told.values())
    page = render(settings, "development", scale, tmp_path / "results").read_text()
    assert ("Mean score by task:" in page) == (name == "ten-tasks")
    policy = load(run_path(folders.runs, cell, tree["trial"]))
    seen = policy.specs.observation
    if name == "pusht-pixels":
        assert [dimension.name for dimension in seen.proprio] == ["agent_x", "agent_y"]
        assert [camera.name for camera in seen.cameras] == ["primary"]
    if name == "pusht-90":
        assert told["state"] == [100_000, 100_001]
    if name == "ten-tasks":
        assert seen.language.kind == "tokens"
        assert len(told["state"]) == 2 * 2
    if name == "stick-push-10":
        found = tree["samplers"]["2"]["checkpoints"]
        assert [one["step"] for one in found][-1] == tree["updates"]
        assert len({one["step"] for one in found}) == 5
        assert found[-1]["score"] == np.mean(told["score"])
        assert "mean of the 5 best of 5" in page
    assert ("checkpoints" in tree["samplers"]["2"]) == (name == "stick-push-10")


@pytest.mark.slow
def test_a_cell_from_end_to_end(tmp_path, monkeypatch):
    settings = write_settings(tmp_path, tiny)
    folders = Folders(tmp_path / "results", tmp_path / "runs", tmp_path / "data", None)
    demonstrated(tmp_path / "data")
    cell, other = enumerate_cells(settings, "development", "small")
    asked = []

    def dying(policy, suite, sampler, *rest):
        asked.append(sampler.num_steps)
        if sampler.num_steps == 1:
            raise RuntimeError("killed")
        return evaluate(policy, suite, sampler, *rest)

    evaluate = module.evaluate
    with monkeypatch.context() as patch:
        patch.setattr(module, "evaluate", dying)
        with pytest.raises(RuntimeError, match="killed"):
            measure(folders, settings, cell, cli.progress)
    assert asked == [2, 1]
    assert finished(folders, settings, cell) is None
    (training,) = (tmp_path / "runs").rglob("training.json")
    before = training.stat().st_mtime_ns

    def counting(policy, suite, sampler, *rest):
        asked.append(sampler.num_steps)
        return evaluate(policy, suite, sampler, *rest)

    monkeypatch.setattr(module, "evaluate", counting)
    path = measure(folders, settings, cell, cli.progress)
    assert asked == [2, 1, 1, 9]
    assert training.stat().st_mtime_ns == before
    tree = json.loads(path.read_text())
    assert finished(folders, settings, cell) == tree
    assert tree["cell"] == cell._asdict()
    assert tree["flops"] == tree["updates"] * tree["update_flops"] <= 1e8 < tree["flops"] + tree["update_flops"]
    assert tree["config"]["num_steps"] == tree["updates"] > 1
    assert str(tmp_path) not in path.read_text()
    assert set(tree["samplers"]) == {"2", "1", "adaptive"}
    assert tree["samplers"]["adaptive"]["episodes"]["num_steps_mean"] == [9, 9]  # no step is that short
    assert "latency_ms" not in tree["samplers"]["adaptive"]  # how long it takes depends on what it sees
    for found in (tree["samplers"][name] for name in "21"):
        episodes = found["episodes"]
        assert episodes["state"] == initial_states(settings, cell)
        assert {"score", "success", "length", "jitter", "energy_first", "energy_mean", "energy_max"} <= set(episodes)
        assert all(len(values) == 2 and np.isfinite(values).all() for values in episodes.values())
        assert set(found["latency_ms"]) == {"1", "32"}
        assert found["latency_ms"]["1"]["an_action"] == found["latency_ms"]["1"]["p50"] / 8
    two, one = (tree["samplers"][name]["chunk_flops"] for name in "21")
    assert two > one > 0
    assert {"hardware", "versions", "parameters", "parameters_sha256", "settings_sha256", "data_sha256"} <= set(tree)
    for part, commit in ((tree["training"], "trained_at"), *((one, "evaluated_at") for one in tree["samplers"].values())):
        assert part[commit] == COMMIT
        assert part["machine"] == {name: tree["hardware"][name] for name in ("cpu", "xla_flags")}
        assert part["versions"] == tree["versions"]
    assert tree["training"]["cpu_seconds"] > 0
    assert tree["training"]["resumed_from"] == []
    assert finished(folders, settings, cell, sweep=True) is None
    measure(folders, settings, cell, cli.progress, sweep=True)
    assert asked == [2, 1, 1, 9, 2, 2]
    assert training.stat().st_mtime_ns == before
    swept = finished(folders, settings, cell, sweep=True)["samplers"]
    assert swept["2"]["episodes"] == tree["samplers"]["2"]["episodes"] == swept["2, method.travel=1.25"]["episodes"]
    assert swept["2"]["episodes"]["energy_drop_first"] != swept["2, method.travel=0.5"]["episodes"]["energy_drop_first"]
    assert swept["2, method.travel=0.5"]["change"] == {"method.travel": 0.5}

    def other_step(tree):
        tiny(tree)
        tree["contestants"]["equilibrium"]["samplers"]["2"] = {"num_steps": 2, "change": {"method.travel": 0.5}}

    changed = write_settings(tmp_path, other_step)
    assert finished(folders, changed, cell) is None  # the name is there, what it means is not
    measure(folders, changed, cell, cli.progress)
    assert asked == [2, 1, 1, 9, 2, 2, 2]
    now = finished(folders, changed, cell)["samplers"]
    assert now.keys() == swept.keys()  # what the sweep asked is kept
    assert now["2"]["episodes"] == swept["2, method.travel=0.5"]["episodes"]
    measure(folders, settings, cell, cli.progress)
    measure(folders, settings, other, cli.progress)
    page = render(settings, "development", "small", folders.results).read_text()
    assert "No cell is missing." in page
    assert "| equilibrium/2 | regression/1 |" in page
    assert "| equilibrium, 1 seeds: steps | method.travel 0.5 | method.travel 1.25 |" in page


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """`measure` of one cell, its heavy parts replaced: (settings, cell, folders, what was done, the parameters a training ends in)."""
    settings = write_settings(tmp_path, small)
    cell = enumerate_cells(settings, "development", "small")[0]
    folders = Folders(tmp_path / "results", tmp_path / "runs", tmp_path / "data", None)
    done, parameters = [], ["first"]

    def train_cell(what, workdir, data_dir, progress):
        path = workdir / "training.json"
        if not path.exists():
            done.append("train")
            training = {"seconds": 1.0, "update_seconds": 1.0, "trained_at": module.COMMIT}
            write_json(path, {"training": training, "updates": 1, "parameters_sha256": parameters[0]})
        return json.loads(path.read_text())

    def load(workdir):
        identity = types.SimpleNamespace(sha256=json.loads((workdir / "training.json").read_text())["parameters_sha256"])
        return types.SimpleNamespace(params={}, identity=identity)

    def evaluate(policy, suite, sampler, episodes, seed, environments):
        done.append(sampler.num_steps)
        return {**asked(sampler), "episodes": {"score": [0.5] * episodes}, "seconds": 1.0, "cores": 1}

    monkeypatch.setattr(module, "prepare", lambda *_: None)
    monkeypatch.setattr(module, "train_cell", train_cell)
    monkeypatch.setattr(module, "load", load)
    monkeypatch.setattr(module, "changed_policy", lambda policy, *_: policy)
    monkeypatch.setattr(module, "evaluate", evaluate)
    monkeypatch.setattr(module, "latency", lambda asked: {name: {} for name in asked})
    monkeypatch.setattr(module, "chunk_flops", lambda policy, steps: dict.fromkeys(steps, 1))
    return types.SimpleNamespace(settings=settings, cell=cell, folders=folders, done=done, parameters=parameters)


def test_a_finished_cell_whose_run_is_gone_is_not_trained_again(quick):
    path = measure(quick.folders, quick.settings, quick.cell, cli.progress)
    before = path.read_text()
    shutil.rmtree(quick.folders.runs)
    quick.done.clear()
    with pytest.raises(ValueError, match=f"{path} must be added to from its own training, parameters_sha256 first of commit .*Bring back"):
        measure(quick.folders, quick.settings, quick.cell, cli.progress, sweep=True)
    assert quick.done == []
    assert path.read_text() == before


def test_other_parameters_do_not_take_a_finished_cells_place(quick):
    path = measure(quick.folders, quick.settings, quick.cell, cli.progress)
    before = path.read_text()
    shutil.rmtree(quick.folders.runs)
    quick.folders.results.rename(away := quick.folders.results.with_name("away"))
    quick.parameters[0] = "second"
    measure(quick.folders, quick.settings, quick.cell, cli.progress)
    shutil.rmtree(quick.folders.results)
    away.rename(quick.folders.results)
    with pytest.raises(ValueError, match="parameters_sha256 first, got parameters_sha256 second"):
        measure(quick.folders, quick.settings, quick.cell, cli.progress, sweep=True)
    assert path.read_text() == before


def test_a_sweep_is_added_to_what_was_measured(quick):
    path = measure(quick.folders, quick.settings, quick.cell, cli.progress)
    before = json.loads(path.read_text())["samplers"]
    (rollouts,) = quick.folders.runs.rglob("rollouts")
    shutil.rmtree(rollouts)
    quick.done.clear()
    measure(quick.folders, quick.settings, quick.cell, cli.progress, sweep=True)
    swept = json.loads(path.read_text())["samplers"]
    assert len(quick.done) == len(swept) - len(before) > 0
    assert before.items() <= swept.items()


def test_every_sampler_says_which_code_asked_it_and_where(quick, monkeypatch):
    measure(quick.folders, quick.settings, quick.cell, cli.progress)
    monkeypatch.setattr(module, "COMMIT", "a later one")
    monkeypatch.setenv("XLA_FLAGS", "--other")
    samplers = json.loads(measure(quick.folders, quick.settings, quick.cell, cli.progress, sweep=True).read_text())["samplers"]
    assert {name: one["evaluated_at"] for name, one in samplers.items() if "," not in name} == dict.fromkeys(("1", "2", "4"), COMMIT)
    swept = samplers["2, mcmc.step_size=0.5"]
    assert (swept["evaluated_at"], swept["machine"]["xla_flags"]) == ("a later one", "--other")
    assert samplers["2"]["machine"]["xla_flags"] != "--other"


def test_a_cell_is_run_by_one_process(quick):
    what = recipe(quick.settings, quick.cell)
    with locked(run_path(quick.folders.runs, quick.cell, what.trial) / "lock"):
        assert measure(quick.folders, quick.settings, quick.cell, cli.progress) is None
    assert quick.done == []
    assert measure(quick.folders, quick.settings, quick.cell, cli.progress) is not None


def test_what_another_process_finished_meanwhile_stays(quick):
    path = measure(quick.folders, quick.settings, quick.cell, cli.progress)
    before = path.stat().st_mtime_ns
    assert measure(quick.folders, quick.settings, quick.cell, cli.progress) == path
    assert path.stat().st_mtime_ns == before


@pytest.fixture
def confirming(quick, monkeypatch):
    """`quick`, in a confirmation whose settings are committed, by code whose hash is "one"."""
    quick.cell = quick.cell._replace(phase="confirmation")
    quick.frozen = []
    monkeypatch.setattr(module, "FILE", quick.folders.results.with_name("settings.json"))
    monkeypatch.setattr(module, "frozen_commit", lambda file: quick.frozen.append(file) or "a commit")

    def code(tree):
        monkeypatch.setattr(module, "SOURCES", tree)
        monkeypatch.setattr(module, "sources", lambda: tree)

    quick.code = code
    quick.code({"ebt_jax": "one"})
    return quick


def test_every_cell_of_a_confirmation_asks_git(confirming):
    cells = [confirming.cell, confirming.cell._replace(seed=1)]
    for cell in cells:
        tree = json.loads(measure(confirming.folders, confirming.settings, cell, cli.progress).read_text())
        assert tree["frozen"] == "a commit"
        assert tree["sources"] == {"ebt_jax": "one"}
    assert confirming.frozen == [module.FILE, module.FILE]


def test_other_sources_do_not_go_on_with_a_confirmation(confirming):
    measure(confirming.folders, confirming.settings, confirming.cell, cli.progress)
    confirming.code({"ebt_jax": "two"})
    confirming.done.clear()
    with pytest.raises(ValueError, match="sources of ebt_jax 'two' .this process., 'one' .confirmation/small/pusht/ebt-mse"):
        measure(confirming.folders, confirming.settings, confirming.cell._replace(seed=1), cli.progress)
    assert confirming.done == []
    confirming.code({"ebt_jax": "one"})
    assert measure(confirming.folders, confirming.settings, confirming.cell._replace(seed=1), cli.progress)


def test_other_sources_do_not_go_on_with_a_cell_begun_in_a_confirmation(confirming, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "evaluate", not_finite)
        with pytest.raises(NotFiniteError):
            measure(confirming.folders, confirming.settings, confirming.cell, cli.progress)
    confirming.code({"ebt_jax": "two"})
    with pytest.raises(ValueError, match="sources of ebt_jax 'two' .this process., 'one' .what was begun of"):
        measure(confirming.folders, confirming.settings, confirming.cell, cli.progress)


def test_code_committed_while_a_confirmation_runs_stops_it(confirming, monkeypatch):
    monkeypatch.setattr(module, "sources", lambda: {"ebt_jax": "two"})
    with pytest.raises(ValueError, match="sources of ebt_jax 'one' .this process., 'two' .the newest commit."):
        measure(confirming.folders, confirming.settings, confirming.cell, cli.progress)


def test_a_finished_cell_of_other_sources_is_not_one_of_the_confirmation(confirming):
    cells = [confirming.cell, confirming.cell._replace(seed=1)]
    for cell in cells:
        path = measure(confirming.folders, confirming.settings, cell, cli.progress)
    path.write_text(path.read_text().replace('{"ebt_jax":"one"}', '{"ebt_jax":"two"}'))
    assert finished(confirming.folders, confirming.settings, cells[0])
    with pytest.raises(ValueError, match="sources of ebt_jax 'two' .*seed_1.*, 'one' .*seed_0"):
        finished(confirming.folders, confirming.settings, cells[1])


def not_finite(*_, **__):
    raise NotFiniteError(
        PolicyOutput(np.full((1, 1, 1), np.nan), *[np.zeros(1)] * 4, *[np.zeros((1, 1))] * 2, np.ones(1, int), {"total": 0.5})
    )


def test_a_sampler_that_is_not_finite_scores_nothing_and_says_so(quick, monkeypatch):
    suite = parts(quick.settings, quick.cell)[0]
    monkeypatch.setattr(rollouts, "rollout", lambda *_, keep_going, **__: keep_going or not_finite())
    policy = types.SimpleNamespace(method=types.SimpleNamespace(energy=None))
    found = rollouts.evaluate(policy, suite, Sampler(2), 20, evaluation_seed(quick.settings, quick.cell))
    assert found["not_finite"].startswith("actions must be finite")
    assert found["episodes"] == {"state": initial_states(quick.settings, quick.cell), "score": [0] * 20, "success": [0] * 20}


def asked_policy(answer):
    return types.SimpleNamespace(sample_actions=answer, sample_keys=lambda *_: None, specs=None, execution_horizon=8)


def test_what_is_not_finite_takes_its_time(monkeypatch):
    monkeypatch.setattr(latency, "empty_batch", lambda *_: types.SimpleNamespace(observation=None))
    assert latency.latency({"2": (asked_policy(not_finite), 2)}, seconds=0)["2"]["1"]["p50"] == 500


def test_all_who_are_timed_take_turns(monkeypatch):
    monkeypatch.setattr(latency, "empty_batch", lambda *_: types.SimpleNamespace(observation=None))
    calls = []

    def answer(*arguments):
        calls.append(arguments[2])
        return types.SimpleNamespace(seconds={"total": 0.001 * arguments[2]})

    found = latency.latency({("a", "one"): (asked_policy(answer), 1), ("b", "four"): (asked_policy(answer), 4)}, seconds=0)
    assert calls == [1, 4] * 2 * (1 + latency.TURNS)  # the first of each batch size compiles
    assert found["b", "four"]["32"] == {"p50": 4, "p99": 4, "calls": latency.TURNS, "an_action": 4 / (32 * 8)}


def test_answers_that_rest_by_themselves_say_after_how_many_steps():
    output = types.SimpleNamespace(num_steps=np.array([3, 5]), energy=1, energy_drop=2, gradient_norm=3)
    policy = types.SimpleNamespace(method=types.SimpleNamespace(energy=None))
    resting = Sampler(8, stopping={"min_step_length": 0.01})
    assert resting.asking == Asking(stopping=Stopping(8, min_step_length=0.01))
    assert rollouts.note(resting, policy, None, None, output)["num_steps"].tolist() == [3, 5]
    assert rollouts.note(Sampler(8), policy, None, None, output) == {}
    policy.method.energy = len
    assert rollouts.note(Sampler(8), policy, None, None, output) == {"energy": 1, "energy_drop": 2, "gradient_norm": 3}


def test_another_rule_of_stopping_is_another_question():
    found = {"num_steps": 8, "change": {}, "disturbance": {}}  # as files have it that are older than the rule
    assert rollouts.is_asked(found, Sampler(8))
    assert not rollouts.is_asked(found, Sampler(8, stopping={"min_step_length": 0.01}))


@pytest.mark.slow
def test_a_pretrained_cell_goes_on_from_there(tmp_path):
    def refined(tree):
        tiny(tree)
        method = tree["contestants"].pop("equilibrium")["config"]["method"]
        tree["contestants"]["refined"] = {
            "pretraining": {"share": 0.5, "config": {"method": method}},
            "config": {"method": {"name": "ebt"}, "mcmc": {"num_steps": 1}},
            "samplers": {"1": 1},
        }
        tree["comparisons"] = tree["primary"] = [["refined/1", "regression/1"]]

    settings = write_settings(tmp_path, refined)
    folders = Folders(tmp_path / "results", tmp_path / "runs", tmp_path / "data", None)
    demonstrated(tmp_path / "data")
    (cell,) = (one for one in enumerate_cells(settings, "development", "small") if one.contestant == "refined")
    path = measure(folders, settings, cell, cli.progress)
    tree = json.loads(path.read_text())
    first = tree["pretraining"]
    assert (first["config"]["method"]["name"], tree["config"]["method"]["name"]) == ("equilibrium", "ebt")
    assert first["flops"] + tree["updates"] * tree["update_flops"] == tree["flops"] <= 1e8
    assert tree["training"]["seconds"] > first["training"]["seconds"] > 0
    assert tree["config"]["init_from"] == "pretraining"
    assert str(tmp_path) not in path.read_text()
    (report,) = (tmp_path / "runs").rglob("init_from.json")
    assert {row["status"] for row in json.loads(report.read_text())["parameter"]} == {"loaded"}


def test_columns_are_one_number_an_episode():
    episodes = [
        EpisodeResult("pusht", 0, 7, False, 1.0, 300, {"score": 0.25, "final_coverage": 0.125}, {"energy": [1.0, 3.0]}, 0.5),
        EpisodeResult("pusht", 1, 8, True, 2.0, 200, {"score": 1.0, "final_coverage": 0.96}, {"energy": [2.0, -2.0]}, 0.25),
    ]
    assert columns(episodes) == {
        "state": [7, 8],
        "score": [0.25, 1.0],
        "success": [0, 1],
        "length": [300, 200],
        "jitter": [0.5, 0.25],
        "final_coverage": [0.125, 0.96],
        "energy_first": [1.0, 2.0],
        "energy_mean": [2.0, 0.0],
        "energy_max": [3.0, 2.0],
    }


def test_what_is_not_finite_is_told_and_fits_json():
    episode = EpisodeResult("pusht", 0, 7, False, 1.0, 300, {"score": 0.25}, {"energy": [1.0, np.inf]}, 0.5)
    found = columns([episode])
    assert (found["energy_first"], found["energy_mean"], found["energy_max"]) == ([1.0], [None], [None])
    json.dumps(found, allow_nan=False)


def test_without_a_score_of_its_own_success_is_the_score():
    assert columns([EpisodeResult("reach-v3", 0, 7, True, 1.0, 50, {}, {})])["score"] == [1.0]


def test_jitter_is_the_mean_second_difference():
    assert mean_second_difference(np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])) == 0.0
    assert mean_second_difference(np.array([[0.0], [1.0], [0.0]])) == 2.0
    assert mean_second_difference(np.zeros((2, 1))) == 0.0
