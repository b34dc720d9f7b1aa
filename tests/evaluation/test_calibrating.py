"""From episodes to calibration.json in a checkpoint, and from there into policies and artifacts."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from formulas import formula_policy, suite_specs
from quadratic import quadratic_policy
from typed import outcomes

import ebt_jax
from ebt_jax.artifact import export_policy, load_artifact
from ebt_jax.calibration import Calibration, DoubtSettings, episode_scores
from ebt_jax.checkpoint import CheckpointError
from ebt_jax.data.mixture import TOKENS
from ebt_jax.data.settings import Filters, bundled_sample_dir
from ebt_jax.evaluation.calibrating import demonstrated, find_step, measured_with, rolled_out, write_calibration
from ebt_jax.evaluation.open_loop import open_dataset
from ebt_jax.policy import Experiment
from ebt_jax.uncertainty import Doubt

SHA = "0" * 64
SETTINGS = DoubtSettings(3, np.ones((2, 6, 2), np.float32), 0.5)


def results(**changes):
    """Two episodes, the second failed."""
    doubt = {name: [1.0, 3.0, 2.0] for name in (*Doubt._fields, "energy")}
    episodes = [{"success": True, "doubt": doubt}, {"success": False, "doubt": {name: [9.0] for name in doubt}}]
    asking = {"doubt": SETTINGS.summary()}
    return {"policy": {"sha256": SHA}, "asking": asking, "tasks": {"reach-v3": {"episode": episodes}}, **changes}


def test_only_successes_say_how_an_episode_should_be():
    (course,) = rolled_out(results(), SHA)
    assert episode_scores([course]) == {"reach-v3": dict.fromkeys(Doubt._fields, (3.0,))}


def test_an_episode_that_could_not_go_on_need_not_have_doubt():
    tree = results()
    tree["tasks"]["reach-v3"]["episode"].append({"success": False, "failure": "simulator"})
    assert len(rolled_out(tree, SHA)) == 1


def test_results_that_cannot_calibrate_are_refused():
    with pytest.raises(ValueError, match="must be of this policy, 111111111111, got 000000000000"):
        rolled_out(results(), "1" * 64)
    with pytest.raises(ValueError, match="Evaluate with --doubt"):
        rolled_out(results(tasks={"reach-v3": {"episode": [{"success": True}]}}), SHA)
    with pytest.raises(ValueError, match="must be of a closed loop, .* got suite 'dataset'.* --data_dir and --dataset"):
        rolled_out(results(suite="dataset", tasks={"bridge": {"rmse": {"x": 0.5}}}), SHA)


def test_a_calibration_on_results_keeps_what_they_were_measured_with():
    """Starts and temperature are the results', whatever the policy's calibration says by now; the chunks must be the same."""
    calibrated = lambda references: dataclasses.replace(
        quadratic_policy(), calibration=Calibration("action_spread", 8, 2.0, "", {}, references).to_json()
    )
    found = measured_with(results(), calibrated(SETTINGS.references))
    assert (found.num_starts, found.temperature, found.references_sha256) == (3, 0.5, SETTINGS.references_sha256)
    without = SETTINGS._replace(references=SETTINGS.references[:0])
    assert measured_with(results(asking={"doubt": without.summary()}), quadratic_policy()).num_starts == 3
    for policy in (calibrated(2 * SETTINGS.references), quadratic_policy()):
        with pytest.raises(ValueError, match="the policy was calibrated since"):
            measured_with(results(), policy)
    for old in ({}, {"asking": {"doubt": True}}):
        with pytest.raises(ValueError, match="got no asking.doubt. Evaluate with --doubt again"):
            measured_with({**results(), "asking": {}, **old}, quadratic_policy())


def test_demonstrations_are_asked_where_the_policy_would_be(tmp_path):
    """E = step size of the chunk, answers 0: the gradient's norm is that of a constant slope at every decision of every episode."""
    specs = suite_specs("metaworld", observation_horizon=1, action_horizon=3)
    specs = dataclasses.replace(specs, observation=dataclasses.replace(specs.observation, language=TOKENS))
    policy = formula_policy(specs, lambda proprio, keys, horizon: jnp.zeros((len(proprio), horizon, 4)), execution_horizon=16)
    method = policy.method._replace(energy=lambda params, context, actions: jnp.sum(actions, axis=(1, 2)))
    policy = dataclasses.replace(policy, method=method)
    mixture = open_dataset(policy, bundled_sample_dir(), "metaworld_pick_place_v3", str(tmp_path))
    found = demonstrated(policy, mixture, "train", DoubtSettings(4, np.zeros((2, 3, 4), np.float32), 1.0))
    lengths = mixture.main.train.episodes["length"]
    assert [len(values["gradient_norm"]) for _, values in found] == [-(-length // 16) for length in lengths]
    assert len({task for task, _ in found}) == 1
    assert found[0][0]
    np.testing.assert_allclose(np.concatenate([values["gradient_norm"] for _, values in found]), np.sqrt(12), rtol=1e-5)


def test_a_checkpoint_takes_its_calibration_along(tiny_run, tmp_path):
    run = pathlib.Path(shutil.copytree(tiny_run, tmp_path / "run"))
    assert pathlib.Path(find_step(run)) == run / "checkpoints" / "20"
    assert pathlib.Path(find_step(run / "checkpoints" / "10")) == run / "checkpoints" / "10"
    calibration = Calibration("action_spread", 4, 1.0, "", {"a": {"action_spread": (1.0, 2.0)}}, np.zeros((0, 4, 4), np.float32))
    write_calibration(find_step(run), calibration.to_json())
    policy = ebt_jax.load(run)
    assert policy.calibrated[:-1] == calibration[:-1]
    assert policy.abstain(0.5).threshold == 2.0
    assert ebt_jax.load(run / "checkpoints" / "10").calibration == ""


def test_a_policy_knows_its_run(tiny_run):
    held_out = {"validation_fraction": 0.1, "validation_folds": 0, "validation_fold": 0, "seed": 0, "on_bad": "raise"}
    held_out["normalization"], held_out["filters"] = "min_max", dataclasses.asdict(Filters())
    evaluation = {"suite": "metaworld", "tasks": ["pick-place-v3"], "episodes": 2, "seed": 0}
    assert ebt_jax.load(tiny_run).experiment == Experiment(("metaworld_pick_place_v3",), held_out, evaluation)


def test_an_artifact_is_sealed(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"policy must be a run.*got the artifact"):
        find_step(tmp_path)


def test_a_risk_that_is_none_is_wrong_usage():
    ((code, said),) = outcomes("calibrate", [("--policy=run", "--risk=1.5")])
    assert (code, "--risk must lie between 0 and 1, got 1.5" in said, "loaded" in said) == (2, True, False), said


@pytest.mark.slow
def test_the_commands_calibrate_audit_and_export(tiny_run, tmp_path):
    """calibrate on held-out episodes -> the last line's threshold -> the artifact abstains by it; audit the sample with the same run."""
    run = shutil.copytree(tiny_run, tmp_path / "run")

    def command(name, *flags):
        line = [sys.executable, "-m", f"ebt_jax.{name}", f"--policy={run}", *flags]
        return subprocess.run(line, capture_output=True, text=True)

    few = command("calibrate", "--risk=0.001")
    assert few.returncode == 1
    assert "at least 999 episodes" in few.stderr
    assert ebt_jax.load(run).calibration == ""
    done = command("calibrate", "--risk=0.3", "--references=8", "--num_starts=2")
    assert done.returncode == 0, done.stderr
    policy = ebt_jax.load(run)
    rule = load_artifact(export_policy(policy, tmp_path / "artifact", ["cpu"])).abstain(0.3)
    assert done.stdout.startswith(f"abstain where action_spread > {rule.threshold:.4g}")
    assert policy.calibrated.references.shape == (8, 4, 4)
    found = json.loads(policy.calibration)["scores"]
    assert all(set(group) == set(Doubt._fields) for group in found.values())
    own = (f"--data_dir={bundled_sample_dir()}", "--dataset=metaworld_pick_place_v3")
    for wrong in (("--dataset=x",), ("--evaluation=x", "--num_starts=2"), ("--statistic=height",), own):
        assert command("calibrate", *wrong).returncode == 2
    audit = command(
        "audit", f"--data_dir={bundled_sample_dir()}", "--dataset=metaworld_pick_place_v3", "--every=30", f"--output={tmp_path / 'audit'}"
    )
    assert audit.returncode == 0, audit.stderr
    assert "episodes the policy was trained on; first:" in audit.stdout
    assert (tmp_path / "audit" / "energies.csv").read_text().startswith("episode,name,step,instruction,energy,relative_energy")
    assert "<svg" in (tmp_path / "audit" / "report.html").read_text()
