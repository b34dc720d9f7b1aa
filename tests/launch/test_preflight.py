"""What the preflight finds: injected differences between machines, and two real processes."""

import importlib.util
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
        ({"device_kind": "TPU v4"}, "devices must be of one kind"),
        ({"local_devices": 3}, "as many devices as the others"),
        ({"datasets": []}, "must see the same datasets"),
        ({"clock": 1090.0}, "clocks must agree within 5 s, got 90 s between a and b"),
        ({"cache": "/x: Permission denied"}, "JAX_COMPILATION_CACHE_DIR must be writable, got b: /x: Permission denied"),
    ],
)
def test_a_difference_is_named_with_its_machine(change, message):
    (line,) = preflight.problems([FACT, {**FACT, "host": "b", **change}], expected_devices=0)
    assert re.search(message, line)


def test_missing_devices_are_noticed():
    (line,) = preflight.problems([FACT], expected_devices=256)
    assert "must have 256 devices, got 8 over 1 processes" in line


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
    for _, error, code in launch(tmp_path, "--config=configs/pusht.py", f"--workdir={tmp_path}/elsewhere"):
        assert code == 1
        assert "configuration file must be the same" in error
    assert "does not see what process 0 wrote" in error
