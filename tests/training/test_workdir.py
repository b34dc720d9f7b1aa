"""A workdir belongs to one configuration, and says what is wrong with it."""

import json
import shutil

import pytest

from ebt_jax.training.workdir import check_workdir, claim_workdir, compare_workdir


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
