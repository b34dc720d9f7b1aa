"""A workdir belongs to one configuration, and says what is wrong with it."""

import errno
import json
import shutil
import subprocess
import sys

import pytest

from ebt_jax.training import workdir
from ebt_jax.training.workdir import check_workdir, claim_workdir, compare_workdir, hold_workdir

HOLD = """
import pathlib, sys, time
from ebt_jax.training.workdir import hold_workdir
with hold_workdir(pathlib.Path(sys.argv[1])):
    print("holding", flush=True)
    time.sleep(100)
"""


def test_a_key_that_has_its_default_is_no_difference(tmp_path, tiny_config):
    """A run goes on under a newer package, whose configurations have more keys."""
    claim_workdir(tmp_path, tiny_config)
    claim_workdir(tmp_path, {**tiny_config, "keep_every": 0, "data": {**tiny_config["data"], "weighting": "given"}})
    with pytest.raises(ValueError, match="1 differences:\n  keep_every: there 0, now 7"):
        claim_workdir(tmp_path, {**tiny_config, "keep_every": 7})
    assert json.loads((tmp_path / "config.json").read_text()) == tiny_config


def test_a_workdir_that_cannot_be_written_is_named(tmp_path, tiny_config):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="workdir must be a folder that can be written, got .*file/run"):
        claim_workdir(tmp_path / "file" / "run", tiny_config)


def test_a_workdir_that_vanished_is_named(tmp_path, tiny_config):
    claim_workdir(tmp_path / "run", tiny_config)
    check_workdir(tmp_path / "run")
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="must stay where it is during a run"):
        check_workdir(tmp_path / "run")


def test_the_mesh_may_change_and_is_said(tmp_path, tiny_config, caplog):
    claim_workdir(tmp_path, tiny_config)
    with caplog.at_level("INFO", "absl"):
        claim_workdir(tmp_path, {**tiny_config, "mesh": {"data": -1, "fsdp": 4}})
    assert "mesh was {'data': -1, 'fsdp': 1}, is now {'data': -1, 'fsdp': 4}" in caplog.text


def test_a_claim_that_a_power_cut_left_empty_is_named(tmp_path, tiny_config):
    (tmp_path / "config.json").write_text("")
    with pytest.raises(ValueError, match=r"config.json must hold the configuration of its run as JSON, got something else .* newest"):
        claim_workdir(tmp_path, tiny_config)


def test_a_workdir_that_another_run_claimed_meanwhile_is_refused(tmp_path, tiny_config):
    compare_workdir(tmp_path, tiny_config)
    assert list(tmp_path.iterdir()) == []
    claim_workdir(tmp_path, {**tiny_config, "seed": 7})
    with pytest.raises(ValueError, match="1 differences:\n  seed: there 7, now 0"):
        claim_workdir(tmp_path, tiny_config)


def test_a_workdir_has_one_run_at_a_time(tmp_path, monkeypatch):
    """The second is told who the first is, and may begin once that has ended, by a kill too."""
    monkeypatch.setattr(workdir, "LOCK_SECONDS", 0.2)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "holding\n"
        with (
            pytest.raises(ValueError, match=rf"one run at a time, got one that process {first.pid} on .* is running"),
            hold_workdir(tmp_path),
        ):
            pass
        first.kill()
        first.wait()
        for _ in range(2):
            with hold_workdir(tmp_path):
                pass


def test_where_there_are_no_locks_that_is_said(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(workdir.fcntl, "flock", refuse)
    with hold_workdir(tmp_path):
        assert "cannot be locked ([Errno 37] No locks available)" in caplog.text


def test_a_folder_that_cannot_hold_a_lock_is_named(tmp_path):
    with pytest.raises(OSError, match="workdir must be a folder that can be written, got .*missing"), hold_workdir(tmp_path / "missing"):
        pass
