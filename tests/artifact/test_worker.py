"""A worker needs jax, numpy, flatbuffers, safetensors, jaxtyping, and what those need; nothing of the training side."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from quadratic import quadratic_policy
from safetensors import safe_open
from safetensors.numpy import load_file
from typed import outcomes
from untrained import SEEING, SPECS, keys, observe, untrained_policy

import ebt_jax
from ebt_jax.artifact import export_policy
from ebt_jax.loading import load
from ebt_jax.stopping import Stopping
from ebt_jax.tree import named_leaves

ROOT = pathlib.Path(__file__).parents[2]
REQUIREMENTS = ROOT / "launch" / "worker-requirements.txt"
LOADED_AND_ACTED = """
import sys
import numpy as np
import ebt_jax
policy = ebt_jax.load(sys.argv[1])
from ebt_jax.policy import empty_batch
from ebt_jax.stopping import Stopping
observation = empty_batch(policy.specs, 3).observation
keys = policy.sample_keys(0, np.arange(3), np.zeros(3, int))
output = policy.sample_actions(observation, keys, stopping=Stopping(5))
assert np.isfinite(output.actions).all() and np.isfinite(policy.energy(observation, output.actions)).all()
print("acted", *sorted({name if name.startswith("ebt_jax") else name.partition(".")[0] for name in sys.modules}))
"""
TRAINING = {"flax", "optax", "orbax", "tensorflow", "chex", "grain", "ml_collections", "tensorstore", "tqdm", "matplotlib"}
"""jax itself takes etils and absl where they are installed."""

OURS = {"ebt_jax.training", "ebt_jax.models", "ebt_jax.data", "ebt_jax.checkpoint"}


def test_the_worker_s_versions_are_the_lock_s():
    lock = (ROOT / "requirements.lock").read_text()
    for line in REQUIREMENTS.read_text().splitlines():
        if "==" in line:
            assert re.search(rf"^{re.escape(line)}( |$)", lock, flags=re.MULTILINE), f"{line} is not in requirements.lock"


def test_loading_and_acting_imports_nothing_of_the_training_side(tmp_path):
    artifact = export_policy(quadratic_policy(), tmp_path / "artifact", ["cpu"])
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", LOADED_AND_ACTED, str(artifact)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert {"acted", "jax", "safetensors", "flatbuffers"} <= loaded
    assert not loaded & (TRAINING | OURS)


@pytest.mark.slow
def test_a_fresh_environment_with_the_worker_s_requirements_loads_and_acts(tmp_path):
    artifact = export_policy(untrained_policy(), tmp_path / "artifact", ["cpu"])
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r", str(REQUIREMENTS)]
    subprocess.run(install, check=True)
    environment = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "PYTHONPATH")}
    environment |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([str(python), "-c", LOADED_AND_ACTED, str(artifact)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & (TRAINING | OURS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "specs", "settings"),
    [
        ("ebt", SEEING, {"learn_step_size": True}),
        ("equilibrium", SPECS, {"travel": 1.0}),
        ("equilibrium", SPECS, {"head": "vector"}),
        ("flow", SPECS, {}),
        ("regression", SPECS, {}),
    ],
)
def test_real_networks_of_every_kind_answer_alike_to_the_bit(name, specs, settings, tmp_path):
    policy = untrained_policy(name, specs, **settings)
    loaded = ebt_jax.load(export_policy(policy, tmp_path / "artifact"))
    for batch_size in (1, 3):
        for request in [{}, {"stopping": Stopping(4, min_step_length=0.01)}] if policy.method.minimize else [{}]:
            live, frozen = (one.sample_actions(observe(specs, batch_size), keys(one, batch_size), **request) for one in (policy, loaded))
            assert (live.actions == frozen.actions).all()
            assert live.energy.tobytes() == frozen.energy.tobytes()


@pytest.mark.slow
def test_diffusion_answers_alike_to_the_last_bit_but_one(tmp_path):
    """Its sampler is products and sums of whole chunks, which XLA may contract otherwise where the batch size is a symbol."""
    policy = untrained_policy("diffusion", SPECS, num_levels=5)
    loaded = ebt_jax.load(export_policy(policy, tmp_path / "artifact"))
    for batch_size in (1, 3):
        live, frozen = (one.sample_actions(observe(SPECS, batch_size), keys(one, batch_size)) for one in (policy, loaded))
        np.testing.assert_allclose(frozen.actions, live.actions, atol=2 * np.finfo(np.float32).eps)


def test_wrong_usage_ends_with_2_before_anything_is_loaded(tmp_path):
    artifact, new = tmp_path / "artifact", tmp_path / "new"
    artifact.mkdir()
    (artifact / "manifest.json").write_text("{}")
    no_run = f"--policy must be a run, whose descent can be lowered, got the artifact {artifact}. Export from the checkpoint"
    wrong = (
        ((f"--policy={artifact}", f"--output={new}"), no_run),
        ((f"--policy={artifact}", f"--output={new}.safetensors"), no_run),
        (("--policy=run", f"--output={new}", "--platforms=gpu"), "--platforms must be among ('cpu', 'cuda', 'tpu'), got ['gpu']"),
        (("--policy=run", f"--output={artifact}"), "--output must be a new or empty folder"),
        (("--policy=run", f"--output={new}", "--sample_steps=two"), "--sample_steps must be numbers, got two"),
        (("--policy=run", f"--output={new}", "--sample_steps=0"), "--sample_steps must be at least 1, got 0"),
    )
    *refused, loaded = outcomes("export", [*(flags for flags, _ in wrong), ("--policy=run", f"--output={new}")])
    for (flags, words), (code, said) in zip(wrong, refused, strict=True):
        assert (code, words in said, "loaded" in said) == (2, True, False), (flags, said)
    assert loaded[0] == 3
    assert not new.exists()


@pytest.mark.slow
def test_the_command_exports_what_load_takes(tiny_run, tmp_path):
    command = [sys.executable, "-m", "ebt_jax.export", f"--policy={tiny_run}", f"--output={tmp_path / 'artifact'}", "--sample_steps=3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "artifact" / "manifest.json").read_text())
    assert done.stdout.strip().splitlines()[-1] == f"sha256 {manifest['sha256']}"
    assert manifest["sample_steps"] == {"own": 2, "all": [2, 3]}
    assert "lowering sample_3 for cpu, cuda, tpu" in done.stderr
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2
    assert "output must be a new or empty folder" in again.stderr


@pytest.mark.slow
def test_parameters_leave_by_command(tiny_run, tmp_path):
    """--output=FILE.safetensors: every parameter by its path, the average or the raw ones, and a header that says which."""
    for ema, flags in ((True, []), (False, ["--noema"])):
        path = tmp_path / "new" / f"{ema}.safetensors"
        command = [sys.executable, "-m", "ebt_jax.export", f"--policy={tiny_run}", f"--output={path}", *flags]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        policy = load(tiny_run, ema=ema)
        assert done.stdout.splitlines()[-1] == f"sha256 {policy.identity.sha256}"
        found, wanted = load_file(path), named_leaves(policy.params)
        assert set(found) == set(wanted)
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value)
        with safe_open(path, "numpy") as file:
            assert file.metadata() == {"step": "20", "method": "ebt", "sha256": policy.identity.sha256, "average": str(ema).lower()}
    command = [sys.executable, "-m", "ebt_jax.export", f"--policy={tiny_run}", f"--output={tmp_path / 'artifact'}", "--noema"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--noema must go with --output=FILE.safetensors" in done.stderr
