"""A silent loop ends its process, and a slow one does not."""

import threading
import time

import pytest

from ebt_jax.interruption import Interrupted
from ebt_jax.training import watchdog
from ebt_jax.training.watchdog import Watchdog


def test_silence_ends_the_process_with_its_number_and_stacks(capfd, monkeypatch):
    monkeypatch.setattr(watchdog, "OTHERS_SECONDS", 0.0)
    monkeypatch.setattr(watchdog, "LOCKED_SECONDS", 60.0)  # a late thread must not end pytest
    ended = threading.Event()
    messages = []

    def end(message):
        messages.append(message)
        ended.set()

    def stuck(dog):
        for _ in range(3):
            dog.update(8)
        assert ended.wait(60)

    with Watchdog(0.2, end, 1, 4) as dog:
        stuck(dog)
    (message,) = messages
    assert message.startswith("error: process 1 of 4 is stuck: nothing happened for")
    assert "'update' of step 8" in message
    assert "in stuck" in capfd.readouterr().err


@pytest.mark.parametrize(("seconds_each", "limit"), [(0.1, 60.0), (7.0, 70.0)])
def test_the_limit_follows_the_mean_update(monkeypatch, seconds_each, limit):
    """Ten updates where that is more than the floor; the first, which compiles, is none of them."""
    now = [0.0]
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now[0])
    dog = Watchdog(60.0, lambda message: None, slow_seconds=1000.0)
    assert dog._phase.limit == 1000.0
    dog.update(1)
    assert dog._phase.limit == 1000.0
    now[0] += 300.0  # compiling
    for step in range(2, 9):
        dog.update(step)
        now[0] += seconds_each
    assert dog._phase.limit == pytest.approx(limit)
    dog.slow("checkpoint")
    now[0] += 900.0
    assert dog._phase.limit == 1000.0
    dog.update(9)
    assert dog._phase.limit == pytest.approx(limit)  # the time a checkpoint took is no update's


@pytest.mark.parametrize("saving", [False, True])
@pytest.mark.parametrize("log_interval", [1, 2, 3, 4, 7, 50])
def test_a_healthy_run_of_slow_updates_is_left_alone(monkeypatch, log_interval, saving):
    """100 s an update, devices two behind: the loop is through the first two at once, and waits for three wherever it logs."""
    now, finished, pending = 0.0, 0.0, []
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now)
    dog = Watchdog(60.0, lambda message: None, in_flight=2)
    for step in range(1, 150):
        dog.update(step)
        limit, begun = dog._phase.limit, now
        finished = max(finished, now) + 100.0
        pending.append(finished)
        now = max([now, *pending[-3:-2]])
        if step % log_interval == 0:
            now, pending = finished, []
        assert now - begun < limit
        if saving and not pending:
            dog.slow("checkpoint")
            now += 500.0
    assert limit < 2000.0  # the pace is known


def test_a_closed_watchdog_is_silent():
    messages = []
    with Watchdog(0.05, messages.append) as dog:
        dog.slow("checkpoint")
    time.sleep(0.3)
    assert not messages
    assert not [thread for thread in threading.enumerate() if thread.name == "watchdog"]


def test_an_error_in_one_of_several_processes_gets_a_deadline(monkeypatch):
    """Saving what is under way may need processes that will never answer."""
    monkeypatch.setattr(watchdog, "CLOSING_SECONDS", 0.1)
    monkeypatch.setattr(watchdog, "OTHERS_SECONDS", 0.0)
    ended, messages = threading.Event(), []
    with pytest.raises(OSError, match="shard"), Watchdog(0.0, lambda message: (messages.append(message), ended.set()), 0, 2):
        raise OSError("shard is gone")
    assert ended.wait(60)
    assert "closing after OSError: shard is gone" in messages[0]


def test_an_interrupted_process_may_wait_for_the_others(monkeypatch):
    """All have saved: it leaves with 75, not with 1."""
    monkeypatch.setattr(watchdog, "CLOSING_SECONDS", 0.05)
    monkeypatch.setattr(watchdog, "OTHERS_SECONDS", 0.0)
    messages = []
    with pytest.raises(Interrupted), Watchdog(0.5, messages.append, 0, 2):
        raise Interrupted("saved step 7")
    time.sleep(0.3)
    assert not messages
