"""The command that records experts: what it writes, and how it refuses."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from ebt_jax.data.spec import DatasetSpec


def collect(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ebt_jax.collect", *flags], capture_output=True, text=True)


@pytest.mark.slow
def test_two_tasks_become_one_dataset_that_tensorflow_datasets_opens(tmp_path: pathlib.Path) -> None:
    import tensorflow_datasets as tfds

    done = collect("--suite=metaworld", "--tasks=reach-v3,push-v3", "--episodes=2", "--seed=5", f"--output={tmp_path}")
    assert done.returncode == 0, done.stderr
    folder = pathlib.Path(done.stdout.strip())
    assert folder == tmp_path / "metaworld" / "1.0.0"
    assert "push-v3: kept 2 of" in done.stderr
    spec = DatasetSpec.from_json((folder / "ebt_spec.json").read_text())
    assert spec.source == "python -m ebt_jax.collect --suite=metaworld --tasks=reach-v3,push-v3 --episodes=2 --seed=5 --noise=0.1"
    episodes = list(tfds.as_numpy(tfds.builder_from_directory(folder).as_dataset(split="train")))
    said = [next(iter(episode["steps"]))["language_instruction"].decode() for episode in episodes]
    assert said == ["reach the goal"] * 2 + ["push the puck to the goal"] * 2
    for episode in episodes:
        actions = np.stack([step["action"] for step in episode["steps"]])
        low, high = (np.array([getattr(dimension, side) for dimension in spec.action]) for side in ("low", "high"))
        assert actions.shape[1] == 4
        assert np.all((actions >= low - 1e-6) & (actions <= high + 1e-6))
        assert np.abs(actions[:, :3]).max() > 1e-3  # metres


def test_wrong_usage_ends_with_2_and_one_line(tmp_path: pathlib.Path) -> None:
    done = collect("--suite=metaworld", "--tasks=make-coffee", f"--output={tmp_path}")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "--tasks must be among assembly-v3" in done.stderr
    assert "got make-coffee" in done.stderr
