"""Where the time of a run went: shares, what a kill cost, and the goodput of all its processes together."""

import json
import os
import resource

import pytest
from tensorboardX.proto.event_pb2 import Event

from ebt_jax.training.metrics import MetricsLog, Stopwatch, account


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_goodput_counts_every_process_and_what_was_lost(tmp_path):
    """10 s of start and compilation, 30 s of updates; killed, with 12 of those after the checkpoint; 20 s more, 15 of them updates."""
    with MetricsLog(tmp_path, 0) as log:
        log.write(5, log.goodput(28.0, {"init": 4.0, "compile": 6.0, "step": 18.0}))
        log.write(9, log.goodput(12.0, {"step": 12.0}))
    assert lines(tmp_path)[0]["goodput"] == pytest.approx(18 / 28)
    assert lines(tmp_path)[1]["goodput"] == pytest.approx(30 / 40)
    with MetricsLog(tmp_path, 5) as log:
        log.write(9, log.goodput(20.0, {"init": 5.0, "step": 15.0}))
        log.write(12, log.goodput(10.0, {"step": 10.0}))
    before, after, last = lines(tmp_path)
    assert (before["step"], after["step"], last["step"]) == (5, 9, 12)
    assert after["lost_seconds"] == pytest.approx(12.0)
    assert "lost_seconds" not in last
    assert after["goodput"] == pytest.approx((18 + 15) / (40 + 20))
    assert last["goodput"] == pytest.approx((18 + 15 + 10) / 70)
    assert account(lines(tmp_path), 12) == pytest.approx((70.0, 43.0, 12.0))


def test_a_second_resume_loses_nothing_twice(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        log.write(4, log.goodput(10.0, {"step": 10.0}))
    for first in (2, 2):
        with MetricsLog(tmp_path, first) as log:
            log.write(4, log.goodput(10.0, {"step": 10.0}))
    (line,) = lines(tmp_path)
    assert line["lost_seconds"] == pytest.approx(20.0)
    assert line["goodput"] == pytest.approx(10 / 30)


def test_the_rest_of_a_stopwatch_is_what_no_part_had(monkeypatch):
    clock = iter([0.0, 1.0, 3.0, 10.0, 11.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    watch = Stopwatch()
    with watch.part("data"):
        pass
    watch.rest("init")
    assert watch.take() == (11.0, {"data": 2.0, "init": 8.0})


def events(workdir):
    """What the files of TensorBoard hold: records of a length, its checksum, an event, its checksum."""
    for path in sorted((workdir / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            yield Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def test_tensorboard_has_every_number(tmp_path):
    with MetricsLog(tmp_path, 4) as log:
        log.write(5, {"loss": 0.5, "time/step": 0.25})
    _, start, *points = events(tmp_path)
    assert (start.step, start.session_log.status) == (5, start.session_log.START)
    assert [(point.step, point.summary.value[0].tag, point.summary.value[0].simple_value) for point in points] == [
        (5, "loss", 0.5),
        (5, "time/step", 0.25),
    ]


def test_what_is_synchronised_is_handed_to_the_disk(tmp_path, monkeypatch):
    """A bucket that is mounted keeps an open file's bytes only then."""
    synchronised = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synchronised.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    with MetricsLog(tmp_path, 0) as log:
        log.write(1, {"loss": 0.5})
        (events,) = (tmp_path / "tensorboard").iterdir()
        log.write(2, {"loss": 0.25})
        before = events.stat().st_size
        synchronised.clear()
        log.sync()
        assert set(synchronised) == {str(tmp_path / "metrics.jsonl"), str(events)}
        assert [line["step"] for line in lines(tmp_path)] == [1, 2]
        assert events.stat().st_size > before


def test_a_step_is_one_line_also_where_a_kill_came_between(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        log.write(1, {"loss": 0.5})
        log.write(2, {"loss": 0.25})
        before = lines(tmp_path)
        log.write(2, {"validation/loss": 0.75})
        log.write(3, {"loss": 0.1})
    assert [event.step for event in events(tmp_path) if event.summary.value] == [1, 2, 2, 3]
    assert before == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
    assert lines(tmp_path) == [before[0], {"step": 2, "loss": 0.25, "validation/loss": 0.75}, {"step": 3, "loss": 0.1}]
    with MetricsLog(tmp_path, 2) as log:
        log.write(3, {"loss": 0.2})
        log.write(3, {"data/replaced_windows": 4.0})
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]
    assert lines(tmp_path)[-1] == {"step": 3, "loss": 0.2, "data/replaced_windows": 4.0}


def test_a_file_that_may_not_grow_is_an_error_and_not_a_hang(tmp_path):
    """By the kernel's own word, and said for the workdir."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def log_on():
        with MetricsLog(tmp_path, 0) as log:
            for step in range(1, 1000):
                log.write(step, {"loss": 1.0})

    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
        with pytest.raises(OSError, match=rf"metrics must be written to workdir {tmp_path}, got .* newest good checkpoint is none"):
            log_on()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 2 < len((tmp_path / "metrics.jsonl").read_text().splitlines()) < 20
