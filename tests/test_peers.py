"""What processes agree on, whatever the order in which they come to it."""

import threading
import time

import pytest

from ebt_jax import peers
from ebt_jax.peers import Peers


class Store:
    """jax's key-value store and barriers, for threads of one process."""

    def __init__(self, processes):
        self.values, self.lock, self.barriers, self.processes = {}, threading.Lock(), {}, processes

    def key_value_set(self, key, value, allow_overwrite=False):
        with self.lock:
            if key in self.values and not allow_overwrite:
                raise RuntimeError(f"ALREADY_EXISTS: {key}")
            self.values[key] = value

    def key_value_dir_get(self, prefix):
        with self.lock:
            return [(key, value) for key, value in self.values.items() if key.startswith(prefix)]

    def blocking_key_value_get(self, key, timeout_in_ms):
        deadline = time.monotonic() + timeout_in_ms / 1000
        while key not in self.values:
            if time.monotonic() > deadline:
                raise RuntimeError("DEADLINE_EXCEEDED")
            time.sleep(0.001)
        return self.values[key]

    def wait_at_barrier(self, name, timeout_in_ms):
        with self.lock:
            barrier = self.barriers.setdefault(name, threading.Barrier(self.processes))
        barrier.wait(timeout_in_ms / 1000)


@pytest.fixture
def company(monkeypatch):
    """Makes n processes that share a store, each with a list of what ended it."""
    monkeypatch.setattr(peers, "POLL_SECONDS", 0.01)
    made = []

    def make(count):
        store, ends = Store(count), [[] for _ in range(count)]
        made.extend(Peers(store, number, count, ends[number].append) for number in range(count))
        return made, ends

    yield make
    for peer in made:
        peer.close()


@pytest.mark.parametrize("asked", [0, 2])
def test_all_stop_after_the_same_step(company, asked):
    """Three loops of different speed; one is asked to stop at its step 5. None stops before it has been asked, none goes further."""
    processes, _ = company(3)
    stopped = {}

    def loop(number):
        for step in range(1, 100_000):
            time.sleep(0.001 * (number + 1))
            if processes[number].stops_after(step, requested=number == asked and step >= 5):
                stopped[number] = step
                return

    threads = [threading.Thread(target=loop, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(stopped) == 3
    assert len(set(stopped.values())) == 1
    assert stopped[0] > 5


def test_a_failure_ends_the_others_and_names_the_first(company):
    processes, ends = company(3)
    processes[1].tell_failure("error: no such shard")
    deadline = time.monotonic() + 30
    while not (ends[0] and ends[2]) and time.monotonic() < deadline:
        time.sleep(0.01)
    for number in (0, 2):
        assert ends[number][0] == f"error: process {number} ends because process 1 failed: error: no such shard"
    assert not ends[1]


def test_who_fails_second_learns_who_was_first(company):
    """The first to fail tears the others' collectives: what those raise must not hide it."""
    processes, _ = company(2)
    assert processes[1].tell_failure("error: no such shard") == ""
    assert processes[0].tell_failure("error: connection closed") == "error: process 0 ends because process 1 failed: error: no such shard"


def test_a_process_with_another_configuration_is_refused(company):
    processes, _ = company(2)
    processes[0].check_same("configuration", "a", "Copy it.", 5.0)
    processes[1].check_same("configuration", "a", "Copy it.", 5.0)
    with pytest.raises(ValueError, match=r"configuration must be the same in all processes, got another in process 1 .* Copy it\."):
        processes[1].check_same("configuration", "b", "Copy it.", 5.0)
