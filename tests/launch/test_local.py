"""The local launcher's own part; what training does about its faults is tested with training."""

import os
import signal
import subprocess
import threading
import time

import local


def test_who_interrupts_the_launcher_interrupts_its_processes_and_waits_for_them(monkeypatch, tmp_path):
    """Each takes half a second to save, as training may, before it ends with 75."""
    port, _ = local.reserve_port()
    words = f"trap 'sleep 0.5; touch {tmp_path}/saved; exit 75' TERM; touch {tmp_path}/ready; while true; do sleep 0.05; done"
    processes = tuple(subprocess.Popen(["bash", "-c", words], start_new_session=True) for _ in range(2))
    monkeypatch.setattr(local, "start", lambda *arguments: local.Job(processes, (), tmp_path, port))
    monkeypatch.setattr("sys.argv", ["local.py", "--", f"--workdir={tmp_path}"])
    before = signal.getsignal(signal.SIGTERM)

    def terminate():
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Timer(0.3, terminate).start()
    try:
        assert local.main() == 75
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (tmp_path / "saved").exists()
    assert [process.poll() for process in processes] == [75, 75]


def test_a_frozen_process_is_not_waited_for(monkeypatch, tmp_path):
    """It never ends by itself: once the others have, it is killed."""
    port, _ = local.reserve_port()
    processes = tuple(subprocess.Popen(["bash", "-c", words]) for words in ("sleep 0.2; exit 3", "sleep 1000"))
    monkeypatch.setattr(local, "start", lambda *arguments: local.Job(processes, (), tmp_path, port))
    monkeypatch.setattr("sys.argv", ["local.py", "--fault=freeze", "--rank=1", "--", f"--workdir={tmp_path}"])
    assert local.main() == 3
    assert processes[1].poll() == -9
