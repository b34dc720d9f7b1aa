"""Artifacts answer as the policy did, and are refused, by name, where anything about them is not as it was exported."""

import dataclasses
import datetime
import hashlib
import json
import pathlib
import shutil
import sys

import jax
import numpy as np
import pytest
from quadratic import SCALE, A, H, keys, observe, quadratic_policy
from safetensors.numpy import load_file, save_file
from untrained import SPECS, untrained_policy

import ebt_jax
from ebt_jax.artifact import (
    PLATFORMS,
    ArtifactError,
    ExpiredArtifactError,
    FutureArtifactError,
    GoldenMismatchError,
    TamperedArtifactError,
    TruncatedArtifactError,
    export_policy,
    golden,
    load_artifact,
)
from ebt_jax.artifact.manifest import MANIFEST, digest
from ebt_jax.artifact.programs import lower
from ebt_jax.constraints import bounds
from ebt_jax.execution import WarmStart
from ebt_jax.mcmc import MCMC
from ebt_jax.methods import make_method
from ebt_jax.models import make_model, model_variant
from ebt_jax.policy import Experiment
from ebt_jax.stopping import Stopping
from ebt_jax.training.trained import acting


@pytest.fixture(scope="module")
def policy():
    held_out = {"validation_fraction": 0.1, "validation_folds": 0, "validation_fold": 0, "seed": 3}
    evaluation = {"suite": "pusht", "tasks": ["pusht"], "episodes": 7, "seed": 2}
    experiment = Experiment(("a", "b"), held_out, evaluation)
    policy = quadratic_policy(step_size=0.4, stiffness=0.3)
    return dataclasses.replace(policy, experiment=experiment, proprio_normalizer=policy.proprio_normalizer._replace(reach=5.0))


@pytest.fixture(scope="module")
def exported(policy, tmp_path_factory):
    return export_policy(policy, tmp_path_factory.mktemp("exported") / "artifact", sample_steps=[4])


@pytest.fixture(scope="module")
def loaded(exported):
    return ebt_jax.load(exported)


@pytest.fixture
def copy(exported, tmp_path):
    return pathlib.Path(shutil.copytree(exported, tmp_path / "artifact"))


def rewrite(folder, **changes):
    """Changes the manifest as a forger would: its own hash is right again."""
    manifest = json.loads((folder / MANIFEST).read_text()) | changes
    manifest["sha256"] = digest(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def replace(folder, name, **changes):
    """Changes tensors of a file, and the manifest so that it does not show."""
    save_file({**load_file(folder / name), **changes}, folder / name)
    reseal(folder, name)


def reseal(folder, name):
    """Makes the manifest say that a file is as it now is."""
    content = (folder / name).read_bytes()
    manifest = json.loads((folder / MANIFEST).read_text())
    about = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    rewrite(folder, files={**manifest["files"], name: about})


def requests(policy, batch_size):
    start = np.full((batch_size, H, A), np.nan, np.float32)
    start[:, :3] = 0.05
    warm = WarmStart(start, np.full(batch_size, 2))
    box = bounds(-0.02, 0.03, policy.action_normalizer.scale)
    return [{}, {"num_steps": 4}, {"num_starts": 3}, {"stopping": Stopping(9, 0.5, 0.01, 0.02)}, {"warm_start": warm}, {"constraint": box}]


@pytest.mark.parametrize("batch_size", [1, pytest.param(7, marks=pytest.mark.slow)])
def test_the_artifact_answers_as_the_policy_does_whatever_is_asked(policy, loaded, batch_size):
    """To the last digit: a formula that is one fused loop may round otherwise there. Networks are held to the bit in test_worker."""
    observation = observe(np.random.default_rng(1).normal(size=(batch_size, 2)))
    for request in requests(policy, batch_size):
        live, frozen = (one.sample_actions(observation, keys(one, batch_size), **request) for one in (policy, loaded))
        for name in live._fields[:-1]:
            np.testing.assert_allclose(getattr(live, name), getattr(frozen, name), rtol=1e-5, atol=1e-7, err_msg=f"{name} of {request}")
    actions = SCALE * np.ones((batch_size, H, A), np.float32)
    np.testing.assert_allclose(policy.energy(observation, actions), loaded.energy(observation, actions), rtol=1e-6)


def test_the_artifact_keeps_the_policys_own_rule_of_rest(tmp_path):
    policy = quadratic_policy(step_size=0.4, min_gradient=0.05)
    artifact = load_artifact(export_policy(policy, tmp_path / "artifact", ["cpu"], sample_steps=[30]))
    observation = observe(np.array([[0.5, -1.0], [9.0, 5.0]]))
    nothing = WarmStart(np.full((2, H, A), np.nan, np.float32), np.zeros(2, int))
    free = lambda actions, proprio: 0 * actions[:, 0, 0]
    wanted = policy.sample_actions(observation, keys(policy, 2), 30).num_steps
    assert wanted[0] < wanted[1] < 30
    for how in ({}, {"warm_start": nothing}, {"constraint": free}):
        found = artifact.sample_actions(observation, keys(artifact, 2), 30, **how)
        np.testing.assert_array_equal(found.num_steps, wanted, err_msg=str(how))


def test_what_was_trained_with_a_gpus_kernel_leaves_it_for_every_platform_without(monkeypatch):
    """Lowering asks which platform this machine is of, and not for which it lowers."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr("ebt_jax.models.transformer.attend_fused", lambda *_: pytest.fail("a kernel that only one platform has"))
    fused = model_variant("debug", width=16, heads=2, encoder_layers=1, decoder_layers=1, precision="bfloat16", encoder_attention="fused")
    trained, acts = (make_method({"name": "regression"}, MCMC(), make_model(c, SPECS, "vector")) for c in (fused, acting(fused)))
    policy = dataclasses.replace(untrained_policy("regression"), method=acts)
    programs = lower(policy, PLATFORMS, [1])
    assert all(set(program.platforms) == set(PLATFORMS) for program in programs.values())
    assert "cudnn" not in programs["encode"].mlir_module()
    with pytest.raises(pytest.fail.Exception, match="only one platform"):
        lower(dataclasses.replace(policy, method=trained), PLATFORMS, [1])


def test_everything_a_robot_needs_comes_along(policy, loaded, exported):
    assert (loaded.specs, loaded.sample_steps, loaded.execution_horizon) == (policy.specs, 2, 2)
    assert loaded.identity == policy.identity._replace(path=str(exported))
    assert loaded.experiment == policy.experiment
    np.testing.assert_array_equal(loaded.statistics.action.q99, policy.statistics.action.q99)
    assert json.loads((exported / MANIFEST).read_text())["platforms"] == ["cpu", "cuda", "tpu"]


def test_a_state_far_out_is_shown_as_the_policy_shows_it(policy, loaded):
    far = observe([[3.0, -1e6]])
    np.testing.assert_array_equal(loaded.prepare(far).proprio, [[[3.0, -5.0]]])
    np.testing.assert_array_equal(policy.prepare(far).proprio, [[[3.0, -5.0]]])


def test_what_was_not_exported_is_refused(loaded, exported):
    with pytest.raises(ValueError, match=r"num_steps must be one of \[2, 4\], which were exported, got 3"):
        loaded.sample_actions(observe([[0, 0]]), keys(loaded, 1), 3)
    loaded.check_steps(4)
    with pytest.raises(ValueError, match=r"num_steps must be one of \[2, 4\], which were exported, got 3"):
        loaded.check_steps(3)
    with pytest.raises(ValueError, match="must only act, got a call to train it"):
        loaded.method.init(jax.random.key(0), None)
    with pytest.raises(ValueError, match="ema must be True for an artifact"):
        ebt_jax.load(exported, ema=False)
    with pytest.raises(ValueError, match="output must be a new or empty folder"):
        export_policy(loaded, exported)
    with pytest.raises(ValueError, match=r"platforms must be among .*got \['gpu'\]"):
        export_policy(loaded, exported / "new", platforms=["gpu"])
    with pytest.raises(ValueError, match="policy must be a run's, .* got an artifact's. Export from its checkpoint"):
        export_policy(loaded, exported / "new")


@pytest.mark.parametrize("name", ["sample_2.bin", "parameters.safetensors", "specs.json", "golden.safetensors"])
def test_one_changed_bit_is_tampering(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(TamperedArtifactError, match=f"{name} must have SHA-256"):
        load_artifact(copy)


def test_a_manifest_edited_by_hand_is_tampering(copy):
    manifest = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps({**manifest, "not_after": "2999-01-01T00:00:00+00:00"}))
    with pytest.raises(TamperedArtifactError, match="must have the hash it names"):
        load_artifact(copy)


def test_a_copy_that_was_cut_off_is_truncated(copy):
    (copy / "encode.bin").write_bytes((copy / "encode.bin").read_bytes()[:-1])
    with pytest.raises(TruncatedArtifactError, match=r"encode.bin must have \d+ bytes, got"):
        load_artifact(copy)
    (copy / "encode.bin").unlink()
    with pytest.raises(TruncatedArtifactError, match=r"must hold encode.bin, got no such file"):
        load_artifact(copy)
    (copy / MANIFEST).write_text((copy / MANIFEST).read_text()[:100])
    with pytest.raises(TruncatedArtifactError, match="must be whole JSON"):
        load_artifact(copy)


def test_files_outside_the_folder_are_not_read(copy):
    manifest = json.loads((copy / MANIFEST).read_text())
    rewrite(copy, files={**manifest["files"], "../secret": {"sha256": "", "bytes": 0}})
    (copy.parent / "secret").write_bytes(b"")
    with pytest.raises(TamperedArtifactError, match="name of a file in the folder"):
        load_artifact(copy)


def test_expired_and_future_artifacts_are_told_apart(copy):
    now = datetime.datetime.now(datetime.UTC)
    rewrite(copy, not_after=(now - datetime.timedelta(days=1)).isoformat())
    with pytest.raises(ExpiredArtifactError, match=r"must be used until .* Export the checkpoint again"):
        load_artifact(copy)
    rewrite(copy, not_after=(now + datetime.timedelta(days=1)).isoformat(), exported=(now + datetime.timedelta(days=3)).isoformat())
    with pytest.raises(FutureArtifactError, match="Set the clock"):
        load_artifact(copy)
    rewrite(copy, jax="99.1.0", exported=now.isoformat())
    with pytest.raises(FutureArtifactError, match=r"got jax 99.1.0"):
        load_artifact(copy)


def test_another_platform_is_named(copy):
    rewrite(copy, platforms=["tpu"])
    with pytest.raises(ArtifactError, match=r"must be exported for cpu, got \['tpu'\]"):
        load_artifact(copy)


def test_an_answer_that_changed_is_noticed(copy):
    """Hashes and all are right, but the parameters are others."""
    gain = load_file(copy / "parameters.safetensors")["gain"]
    replace(copy, "parameters.safetensors", gain=np.asarray(1.01 * gain, np.float32))
    with pytest.raises(GoldenMismatchError, match="actions of the golden observation must be what it was at export"):
        load_artifact(copy)


def test_an_answer_from_another_kind_of_machine_is_not_held_to_the_last_digit(copy):
    """A GPU's answer is met within 1e-2; a CPU's, and that of an older artifact, which does not say whose it is, within 1e-5."""
    assert json.loads((copy / MANIFEST).read_text())["answered_on"] == "cpu"
    actions = load_file(copy / "golden.safetensors")["answer/actions"]
    replace(copy, "golden.safetensors", **{"answer/actions": np.asarray(1.001 * actions, np.float32)})
    with pytest.raises(GoldenMismatchError, match="actions of the golden observation must be what it was at export"):
        load_artifact(copy)
    rewrite(copy, answered_on="cuda")
    load_artifact(copy)
    manifest = json.loads((copy / MANIFEST).read_text())
    del manifest["answered_on"]
    (copy / MANIFEST).write_text(json.dumps({**manifest, "sha256": digest(manifest)}))
    with pytest.raises(GoldenMismatchError, match="actions of the golden observation must be what it was at export"):
        load_artifact(copy)


def test_a_descent_under_way_that_changed_is_noticed(copy, tmp_path):
    """What a robot's loop runs is another program than the policy's own answer; an older artifact is not asked for it."""
    other = export_policy(quadratic_policy(step_size=0.2, stiffness=0.3), tmp_path / "other", ["cpu"])
    shutil.copy(other / "minimize.bin", copy / "minimize.bin")
    reseal(copy, "minimize.bin")
    with pytest.raises(GoldenMismatchError, match="under_way_actions of the golden observation must be what it was at export"):
        load_artifact(copy)
    older = {name: value for name, value in load_file(copy / "golden.safetensors").items() if "under_way" not in name}
    save_file(older, copy / "golden.safetensors")
    reseal(copy, "golden.safetensors")
    load_artifact(copy)


def test_another_number_of_looks_is_no_mismatch_and_another_shape_is_named(policy):
    """A descent that stops by itself may take one look more where rounding differs."""
    asked = golden.ask(policy)
    longer = np.concatenate([asked["answer/trace_energy"], np.full((1, 1), 9.0, np.float32)])
    golden.check(policy, {**asked, "answer/trace_energy": longer}, golden.TOLERANCE)
    with pytest.raises(GoldenMismatchError, match=r"sample_energy of the golden observation must be of shape \[2\], got \[1\]"):
        golden.check(policy, {**asked, "answer/sample_energy": np.zeros(2, np.float32)}, golden.TOLERANCE)


def test_a_folder_that_is_no_artifact_is_said_to_be_none(tmp_path):
    with pytest.raises(ArtifactError, match="artifact must be a folder with a manifest.json"):
        load_artifact(tmp_path)


def test_a_worker_that_finds_no_manifest_is_told_so_and_not_which_package_a_run_would_need(copy, monkeypatch):
    for name in ("ebt_jax.training.trained", "ebt_jax.checkpoint"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    (copy / MANIFEST).unlink()
    with pytest.raises(ArtifactError, match=r"folder on a disk with a manifest.json, .* \(no orbax.checkpoint\), got .*/artifact. Correct"):
        ebt_jax.load(copy)


def test_an_artifact_in_a_bucket_is_to_be_copied(copy, monkeypatch):
    monkeypatch.setattr("etils.epath.Path", lambda path: pathlib.Path(path.replace("gs://bucket", str(copy.parent))))
    with pytest.raises(ArtifactError, match="an artifact must lie on a disk, got gs://bucket/artifact. Copy the folder"):
        ebt_jax.load("gs://bucket/artifact")


def test_the_calibration_comes_along_and_what_takes_time_is_said(policy, tmp_path, caplog):
    caplog.set_level("INFO", "ebt_jax")
    measured = dataclasses.replace(policy, calibration='{"risk": 0.1}')
    assert load_artifact(export_policy(measured, tmp_path / "measured", ["cpu"])).calibration == '{"risk": 0.1}'
    lowered = [f"lowering {name} for cpu" for name in ("encode", "sample_2", "energy", "minimize", "step_size")]
    assert caplog.messages == [*lowered, "asking for the golden answer", f"checking the artifact {tmp_path / 'measured'}"]
