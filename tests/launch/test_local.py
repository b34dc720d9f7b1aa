"""The local launcher's own part; what training does about its faults is tested with training."""

import subprocess

import local


def test_a_frozen_process_is_not_waited_for(monkeypatch, tmp_path):
    """It never ends by itself: once the others have, it is killed."""
    port, _ = local.reserve_port()
    processes = tuple(subprocess.Popen(["bash", "-c", words]) for words in ("sleep 0.2; exit 3", "sleep 1000"))
    monkeypatch.setattr(local, "start", lambda *arguments: local.Job(processes, (), tmp_path, port))
    monkeypatch.setattr("sys.argv", ["local.py", "--fault=freeze", "--rank=1", "--", f"--workdir={tmp_path}"])
    assert local.main() == 3
    assert processes[1].poll() == -9
