"""The report of a run is made of its files, whichever of them are there."""

import dataclasses
import json

import numpy as np
import pytest
from bs4 import BeautifulSoup

from ebt_jax.report.descents import DESCENT, LANDSCAPE, draw_descent
from ebt_jax.report.evaluation import write_evaluation_report
from ebt_jax.report.held_out import draw_held_out
from ebt_jax.report.run import read_metrics, write_run_report
from ebt_jax.report.video import write_video
from ebt_jax.training.settings import Settings
from ebt_jax.types import Sample

RESULTS = {
    "suite": "metaworld",
    "policy": {"path": "runs/a", "sha256": "0" * 64, "step": 100, "method": "ebt"},
    "tasks": {
        "reach-v3": {
            "episodes": 2,
            "successes": 1,
            "success_rate": 0.5,
            "wilson_95": [0.09, 0.91],
            "mean_return": 3.0,
            "episode": [
                {"seed": 0, "success": True, "return": 3.0, "length": 40},
                {"seed": 1, "success": False, "return": 3.0, "length": 60},
            ],
        }
    },
    "mean_success_rate": 0.5,
    "sample_steps": {"mean": 2.0, "p50": 2, "p99": 2},
    "latency_ms": {"encode": {"p50": 1.0, "p99": 2.0}, "total": {"p50": 3.0, "p99": 4.0}},
    "versions": {"jax": "1.2.3"},
    "hardware": "2 cores",
    "command": "python -m ebt_jax.evaluate",
    "seed": 0,
    "videos": ["videos/reach-v3/000.mp4"],
}


def soup(path):
    return BeautifulSoup(path.read_text(), "html.parser")


def headings(page):
    return [heading.text for heading in page.find_all("h2")]


def summary(page):
    return {pair.dt.text: pair.dd.text for pair in page.find("dl").find_all("div")}


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0, "validation/loss": 1.5}\n{"step": 3, "lo')
    (tmp_path / "config.json").write_text(json.dumps({"num_steps": 3, "method": {"name": "ebt"}, "data": {"mixture": ""}}))
    return tmp_path


@pytest.fixture
def evaluated(workdir):
    folder = workdir / "evaluation"
    write_video(folder / "videos" / "reach-v3" / "000.mp4", np.zeros((3, 16, 16, 3), np.uint8), 10)
    (folder / "results.json").write_text(json.dumps(RESULTS))
    return folder


def sample(b=3, k=2, h=4, a=2):
    path = np.random.default_rng(0).normal(size=(k + 1, b, h, a)).astype(np.float32)
    energies = np.sum(path**2, axis=(2, 3))
    return Sample(path[-1], energies[-1], path, energies[:-1], 2 * np.sqrt(energies[:-1]), np.full(b, k))


def test_report_of_a_run(workdir, evaluated):
    answer = sample()
    draw_descent(workdir, answer, answer.actions + 0.1, np.ones((3, 4, 2), bool), lambda a: np.sum(a**2, axis=(1, 2)))
    page = soup(write_run_report(workdir))
    assert headings(page) == ["Training", "Minimising the energy", "Closed loop", "Rollouts", "How it was measured", "Configuration"]
    numbers = summary(page)
    assert (numbers["step"], numbers["loss"], numbers["validation loss"], numbers["success rate"]) == ("2", "1", "1.5", "50.0 %")
    assert len(page.find_all("video")) == 1
    assert len(page.find_all("svg")) == 4
    settings = {row.td.text: row.find_all("td")[1].text for row in page.find_all("section")[-1].find_all("tr")[1:]}
    assert settings == {"num_steps": "3", "method.name": '"ebt"', "data.mixture": '""'}
    assert "ebt · 3 updates" in page.find(class_="subtitle").text


def test_report_of_a_run_that_has_only_begun(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="neither"):
        write_run_report(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "loss": 1.0}\n')
    assert headings(soup(write_run_report(tmp_path))) == ["Training"]


def test_metrics_of_a_run_that_was_killed_and_resumed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n{"step": 2, "loss": 2.5}\n{"step": 3, "loss"')
    assert read_metrics(path) == [{"step": 1, "loss": 3}, {"step": 2, "loss": 2.5}]
    path.write_text('{"step": 1, "loss": 3}\n{"step": 1, "validation/loss": 4}\n')
    assert read_metrics(path) == [{"step": 1, "loss": 3, "validation/loss": 4}]
    path.write_text('{"step": 1, "loss"\n{"step": 2, "loss": 2}\n')
    with pytest.raises(ValueError, match="line 1 of"):
        read_metrics(path)


def test_masked_actions_are_not_in_the_error(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr("ebt_jax.report.descents.descent", lambda *curves: drawn.update(error=curves[2]))
    monkeypatch.setattr("ebt_jax.report.descents.landscape", lambda *_: None)
    monkeypatch.setattr("ebt_jax.report.descents.to_svg", lambda _: "")
    answer = sample()
    mask = np.ones((3, 4, 2), bool)
    mask[:, 2:] = False
    demonstrations = np.where(mask, answer.actions + 0.5, 1e6).astype(np.float32)
    draw_descent(tmp_path, answer, demonstrations, mask, lambda a: np.zeros(len(a)))
    assert drawn["error"].shape == (3, 3)
    np.testing.assert_allclose(drawn["error"][-1], 0.5, rtol=1e-5)


def test_method_without_energy_has_no_landscape(tmp_path):
    answer = sample()._replace(energy=np.full(3, np.nan), trace_energy=np.full((2, 3), np.nan), trace_gradient_norm=np.full((2, 3), np.nan))
    draw_descent(tmp_path, answer, answer.actions, np.ones((3, 4, 2), bool), None)
    assert (tmp_path / DESCENT).is_file()
    assert not (tmp_path / LANDSCAPE).exists()
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "loss": 1.0}\n')
    page = soup(write_run_report(tmp_path))
    assert headings(page) == ["Training", "Sampling"]
    assert "no energy" in page.text
    assert len(page.find_all("svg")) == 2


def test_a_run_that_holds_nothing_out_has_a_report_without_descents(tmp_path, tiny_config, caplog):
    data = dataclasses.replace(Settings.from_dict(tiny_config).data, validation_fraction=0.0)
    with caplog.at_level("WARNING"):
        draw_held_out(tmp_path, data, seed=0)
    assert "the report shows no descents, which are drawn on held-out observations: validation must have" in caplog.text
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "loss": 1.0}\n')
    assert headings(soup(write_run_report(tmp_path))) == ["Training"]


def test_report_of_an_evaluation(evaluated):
    page = soup(write_evaluation_report(evaluated))
    assert headings(page) == ["Closed loop", "Rollouts", "How it was measured"]
    assert summary(page) == {"success rate": "50.0 %", "episodes": "2", "sampler steps": "2", "ms a batch (median)": "3"}
    row = [cell.text for cell in page.find("table").find_all("td")]
    assert row == ["reach-v3", "2", "1", "50.0 %", "9 to 91 %", "50", "3"]
    assert "1.2.3" in page.text
    assert page.pre.text == RESULTS["command"]


@pytest.mark.parametrize(
    ("disturbance", "said"),
    [
        ({"at": 0, "push": 0.0, "release": 0, "noise": 0.0}, None),
        ({"at": 10, "push": 0.05, "release": 0, "noise": 0.0}, "a push of 0.05 at step 10"),
        ({"at": 0, "push": 20.0, "release": 0, "noise": 0.1}, "a push of 20 at the start, noise of 0.1 standard deviations"),
        ({"at": 40, "push": 0.0, "release": 15, "noise": 0.0}, "the gripper open for 15 steps at step 40"),
    ],
)
def test_a_disturbed_evaluation_says_so(disturbance, said, evaluated):
    (evaluated / "results.json").write_text(json.dumps({**RESULTS, "disturbance": disturbance}))
    assert summary(soup(write_evaluation_report(evaluated))).get("disturbed by") == said


def test_disturbed_episodes_are_counted(evaluated):
    task = {**RESULTS["tasks"]["reach-v3"], "disturbed": {"episodes": 2, "successes": 1}}
    other = {**task, "disturbed": {"episodes": 0, "successes": 0}}
    results = {**RESULTS, "disturbance": {"at": 10, "push": 0.05}, "tasks": {"reach-v3": task, "push-v3": other}}
    (evaluated / "results.json").write_text(json.dumps(results))
    page = soup(write_evaluation_report(evaluated))
    assert summary(page)["disturbed episodes"] == "2 (1 succeeded)"
    rows = [[cell.text for cell in row.find_all("td")] for row in page.find("table").find_all("tr")[1:]]
    assert [row[-1] for row in rows] == ["2 (1 succeeded)", "0 (0 succeeded)"]
    assert page.find("table").find_all("th")[-1].text == "disturbed"


def test_episodes_that_could_not_go_on_are_counted(evaluated):
    task = {**RESULTS["tasks"]["reach-v3"], "failures": {"not_finite": 1}}
    (evaluated / "results.json").write_text(json.dumps({**RESULTS, "tasks": {"reach-v3": task, "push-v3": RESULTS["tasks"]["reach-v3"]}}))
    page = soup(write_evaluation_report(evaluated))
    assert summary(page)["could not go on"] == "1 (not finite)"
    first, second = ([cell.text for cell in row.find_all("td")] for row in page.find("table").find_all("tr")[1:])
    assert page.find("table").find_all("th")[-1].text == "could not go on"
    assert (first[-1], len(first)) == ("1 (not finite)", len(second))


def test_cameras_that_a_policy_went_without_are_named(evaluated):
    (evaluated / "results.json").write_text(json.dumps({**RESULTS, "masked_cameras": ["wrist", "goal_primary"]}))
    assert summary(soup(write_evaluation_report(evaluated)))["masked cameras"] == "wrist, goal_primary"


def test_report_of_an_open_loop_evaluation(tmp_path):
    task = {
        "episodes": 3,
        "trained_on": False,
        "relative_mse": 0.25,
        **{name: {"x": 0.5} for name in ("rmse", "first_rmse", "mean_action_rmse")},
    }
    (tmp_path / "results.json").write_text(json.dumps({"suite": "dataset", "tasks": {"bridge": task}}))
    page = soup(write_evaluation_report(tmp_path))
    assert headings(page) == ["Open loop", "How it was measured"]
    assert summary(page) == {"squared error, of the mean action's": "25.0 %", "episodes": "3"}
    assert [cell.text for cell in page.find("table").find_all("td")] == ["bridge", "not trained on", "x", "0.5", "0.5", "0.5"]


def test_only_a_few_videos_travel_in_the_page(evaluated):
    folder = evaluated / "videos" / "reach-v3"
    film = (folder / "000.mp4").read_bytes()
    for number in range(1, 30):
        (folder / f"{number:03d}.mp4").write_bytes(film)
    names = [f"videos/reach-v3/{number:03d}.mp4" for number in range(30)]
    (evaluated / "results.json").write_text(json.dumps({**RESULTS, "videos": names}))
    assert len(soup(write_evaluation_report(evaluated)).find_all("video")) == 12


def test_only_films_of_this_evaluation_are_drawn(evaluated):
    """Not those of an earlier one into the same folder, what a killed encoder left, or what was removed since."""
    film = (evaluated / "videos" / "reach-v3" / "000.mp4").read_bytes()
    for name in ("reach-v3/001.mp4", "reach-v3/.000.mp4.partial.mp4", "push-v3/000.mp4"):
        (evaluated / "videos" / name).parent.mkdir(exist_ok=True)
        (evaluated / "videos" / name).write_bytes(film)
    names = ["videos/reach-v3/000.mp4", "videos/reach-v3/002.mp4"]
    (evaluated / "results.json").write_text(json.dumps({**RESULTS, "videos": names}))
    (figure,) = (video.parent for video in soup(write_evaluation_report(evaluated)).find_all("video"))
    assert figure.text.strip() == "reach-v3 000"
    (evaluated / "results.json").write_text(json.dumps({**RESULTS, "videos": []}))
    assert "Rollouts" not in headings(soup(write_evaluation_report(evaluated)))


def test_evaluation_without_results_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"results\.json must exist"):
        write_evaluation_report(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ValueError, match=r"results\.json must be JSON"):
        write_evaluation_report(tmp_path)


def test_the_time_of_all_processes_is_accounted_for(tmp_path):
    lines = [
        {"step": 1, "seconds": 10.0, "time/init": 0.4, "time/step": 0.5, "goodput": 0.5},
        {"step": 2, "seconds": 20.0, "time/step": 0.75, "lost_seconds": 10.0, "goodput": 0.5},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = soup(write_run_report(tmp_path))
    rows = {row[0].text: float(row[1].text) for row in (line.find_all("td") for line in page.find_all("tr")) if len(row) == 3}
    assert rows == {"step": 20.0, "undone by a kill": 10.0, "init": 4.0, "other": 6.0}
    assert "50.0 % of 40 seconds went into updates that count" in page.text
    assert summary(page)["goodput"] == "0.5"
