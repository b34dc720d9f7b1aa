"""What the preflight finds: injected differences between machines, and two real processes."""

import argparse
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import local
import pytest

ROOT = pathlib.Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("preflight", ROOT / "launch/preflight.py")
preflight = importlib.util.module_from_spec(spec)
spec.loader.exec_module(preflight)

FACT = {
    "host": "a",
    "code": "1",
    "config": "2",
    "python": "3.11.7",
    "packages": {"jax": "0.10.2"},
    "device_kind": "TPU v5e",
    "local_devices": 4,
    "devices": 8,
    "clock": 1000.0,
    "datasets": ["bridge"],
    "cache": "",
    "flags": {"XLA_FLAGS": [], "LIBTPU_INIT_ARGS": ["--a=1"]},
    "batch": [32, 2],
    "faults": [],
}


def test_machines_that_agree_have_no_problems():
    assert preflight.problems([FACT, {**FACT, "host": "b", "clock": 1004.0}], expected_devices=8) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"code": "9"}, "files of ebt_jax, configs and launch must be the same.*a .process 0. has 1, got b .process 1.: 9"),
        ({"config": "9"}, "configuration file must be the same"),
        ({"python": "3.12.1"}, "Python version must be the same"),
        ({"packages": {"jax": "0.10.1"}}, r'package versions must be the same.*got b \(process 1\): {"jax": "0.10.1"}'),
        ({"flags": {"XLA_FLAGS": [], "LIBTPU_INIT_ARGS": []}}, r"XLA_FLAGS and LIBTPU_INIT_ARGS must be the same.*--a=1.*got b"),
        ({"device_kind": "TPU v4"}, "devices must be of one kind"),
        ({"local_devices": 3}, "as many devices as the others"),
        ({"datasets": []}, "must see the same datasets"),
        ({"clock": 1090.0}, "clocks must agree within 5 s, got 90 s between a and b"),
        ({"cache": "/x: Permission denied"}, "JAX_COMPILATION_CACHE_DIR must be writable, got b: /x: Permission denied"),
        ({"faults": ["/data: No such file"]}, r"must be there on all machines, got b \(process 1\): /data: No such file"),
    ],
)
def test_a_difference_is_named_with_its_machine(change, message):
    (line,) = preflight.problems([FACT, {**FACT, "host": "b", **change}], expected_devices=0)
    assert re.search(message, line)


def test_missing_devices_are_noticed():
    (line,) = preflight.problems([FACT], expected_devices=256)
    assert "must have 256 devices, got 8 over 1 processes" in line


def test_a_batch_that_does_not_split_is_noticed():
    (line,) = preflight.problems([{**FACT, "batch": [40, 2]}], expected_devices=8)
    assert "must be a multiple of devices x optimizer.accumulate_steps, 16, got 40" in line


def test_what_is_not_there_is_a_fault_of_the_machine(tmp_path):
    """Not an exception, which would leave the others waiting."""
    options = argparse.Namespace(config=f"{tmp_path}/c.py:debug", data_dir=f"{tmp_path}/data")
    fact = preflight.gather(options)
    assert fact["faults"] == [f"{tmp_path}/c.py: No such file or directory", f"{tmp_path}/data: No such file or directory"]
    json.dumps(fact)
    fact = preflight.gather(argparse.Namespace(config=f"{ROOT}/configs/oxe.py", data_dir=""))
    assert fact["faults"] == []
    assert fact["batch"][0] > 0


def test_a_folder_left_behind_is_no_trouble(tmp_path):
    (tmp_path / ".preflight-a/mark").mkdir(parents=True)
    assert preflight.folder_faults(tmp_path, "b", 0) == []
    assert preflight.folder_faults(tmp_path / "new", "b", 0) == []
    (tmp_path / "file").touch()
    (fault,) = preflight.folder_faults(tmp_path / "file", "b", 0)
    assert "must be a folder to write into, got " in fault


def test_a_bucket_is_no_folder(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["preflight.py", "--workdir=gs://bucket/run"])
    with pytest.raises(SystemExit, match="2"):
        preflight.main()
    assert "--workdir must be a folder, got gs://bucket/run" in capsys.readouterr().err


def launch(tmp_path, *second):
    """Two processes of two devices; `second` are flags of process 1 in place of its own."""
    port, address = local.reserve_port()
    processes = []
    for number in range(2):
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(number),
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        }
        flags = [f"--workdir={tmp_path}/run", "--config=configs/oxe.py", "--devices=4", *(second if number == 1 else ())]
        command = [sys.executable, ROOT / "launch/preflight.py", *flags]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT))
    with port:
        return [(*process.communicate(timeout=240), process.returncode) for process in processes]


@pytest.mark.slow
def test_two_processes_are_ready_or_say_why_not(tmp_path):
    for out, error, code in launch(tmp_path):
        assert code == 0, error
        assert "ready: 2 processes, 4 x cpu" in out
    assert not list((tmp_path / "run").iterdir())
    broken = ("--config=configs/pusht.py", f"--workdir={tmp_path}/elsewhere", f"--data_dir={tmp_path}/data")
    for _, error, code in launch(tmp_path, *broken):
        assert code == 1
        assert "configuration file must be the same" in error
        assert f"(process 1): {tmp_path}/data: No such file" in error
        assert "does not see what process 0 wrote" in error
