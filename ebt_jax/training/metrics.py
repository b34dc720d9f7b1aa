"""What a run says of itself: one JSON object a line, one line a step; TensorBoard beside it, and where the time went."""

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.summary import scalar

from ebt_jax.checkpoint import finished_steps
from ebt_jax.whole import write_whole

FLUSH_SECONDS = 10.0
"""How long TensorBoard may lag behind metrics.jsonl."""


class Spent(NamedTuple):
    """Seconds of a run over all its processes; the time between two processes is not known and counts for nothing.

    Attributes:
      total: all of them.
      useful: in updates that count.
      lost: in what a kill undid, done again since.
    """

    total: float = 0.0
    useful: float = 0.0
    lost: float = 0.0


def account(records: Iterable[Mapping[str, Any]], last_step: int) -> Spent:
    """What the lines of a metrics.jsonl say; those past `last_step` are lost."""
    total = useful = lost = 0.0
    for record in records:
        seconds = record.get("seconds", 0.0)
        total += seconds + record.get("lost_seconds", 0.0)
        lost += record.get("lost_seconds", 0.0)
        if record["step"] > last_step:
            lost += seconds
        else:
            useful += seconds * record.get("time/step", 0.0)
    return Spent(total, useful, lost)


class MetricsLog:
    """`DIR/metrics.jsonl` and TensorBoard events of one run; a resumed run goes on where its checkpoint stood.

    Raises OSError, in opening, writing and closing, where the disk is full or gone; names the workdir and its newest checkpoint.
    """

    def __init__(self, workdir: pathlib.Path, first_step: int, silent: bool = False) -> None:
        """Lines past `first_step`, written after the checkpoint that the run resumes from, are dropped: they will come again.

        `silent`: nothing is read or written, for all processes of a run but the first.
        """
        self._path, self._spent, self._lost, self._silent = workdir / "metrics.jsonl", Spent(), 0.0, silent
        self._line: dict[str, Any] = {}
        if silent:
            return
        with self._writing():
            if self._path.exists():
                records = [record for record in map(_record, self._path.read_text().splitlines()) if record is not None]
                kept = [record for record in records if record["step"] <= first_step]
                self._spent = account(records, first_step)
                self._lost = self._spent.lost - account(kept, first_step).lost
                write_whole(self._path, "".join(json.dumps(record) + "\n" for record in kept))
            self._path.touch()
            self._file = self._path.open("r+b")
            self._start = self._file.seek(0, os.SEEK_END)
            self._events = Events(workdir / "tensorboard", first_step)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Closes; what goes wrong in that is not said over the error that came first."""
        if self._silent:
            return
        with contextlib.suppress(*(() if kind is None else (OSError,))), self._writing():
            try:
                self._file.close()
            finally:
                self._events.close()

    def goodput(self, wall: float, parts: Mapping[str, float]) -> dict[str, float]:
        """What to write of `wall` seconds since the last call, of which `parts` had names: shares, and the run's goodput so far.

        seconds: `wall`. time/NAME: share of each part. lost_seconds: once after a resume, the age of what was undone. goodput: share of all
        seconds of the run, in all its processes, that went into updates that count.
        """
        shares = {f"time/{name}": seconds / wall for name, seconds in parts.items()}
        total, useful, lost = self._spent
        self._spent = Spent(total + wall, useful + parts.get("step", 0.0), lost)
        undone, self._lost = {"lost_seconds": self._lost} if self._lost else {}, 0.0
        return {"seconds": wall, **shares, **undone, "goodput": self._spent.useful / self._spent.total}

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """The line of this step, or more of the one that is there; safe from a kill when this returns, and after `sync` from more.

        A line that grows is written over itself: what it said is there all the time, whenever a kill comes.
        """
        if self._silent:
            return
        if step != self._line.get("step"):
            self._line, self._start = {"step": step}, self._file.tell()
        self._line |= values
        with self._writing():
            self._file.seek(self._start)
            self._file.write(json.dumps(self._line).encode() + b"\n")
            self._file.truncate()  # having flushed
            self._events.add(step, values)

    def sync(self) -> None:
        """What was written outlives the machine: mounted buckets keep a file that is open only when they are told to."""
        if self._silent:
            return
        with self._writing():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._events.flush()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            workdir = self._path.parent
            newest = (finished_steps(workdir / "checkpoints") or ["none"])[-1]
            raise OSError(
                f"metrics must be written to workdir {workdir}, got {error}. The newest good checkpoint is {newest}, or one "
                "that is being saved; is the disk full, gone or read-only? Make room, then start the same command again to go on."
            ) from error


class Events:
    """TensorBoard's file of one process, written by whoever adds to it: what fails is raised there.

    The writer that tensorboardX offers hands over to a thread. On a full disk that thread ends without a word, its queue of ten fills
    up, and the next `add_scalar` waits for ever.
    """

    def __init__(self, directory: pathlib.Path, first_step: int) -> None:
        """Past `first_step`, TensorBoard forgets what earlier processes wrote."""
        directory.mkdir(parents=True, exist_ok=True)
        self._writer, self._flushed = EventsWriter(str(directory / "events")), 0.0
        self._writer.write_event(Event(step=first_step + 1, wall_time=time.time(), session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """A point of each curve."""
        for name, value in values.items():
            self._writer.write_event(Event(step=step, wall_time=time.time(), summary=scalar(name, value)))
        if time.monotonic() > self._flushed + FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Hands over what was added to the system."""
        self._writer.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flushes first."""
        self._writer.close()


def _record(line: str) -> dict[str, Any] | None:
    """A line; None for one that a kill cut short."""
    try:
        record = json.loads(line)
        return record if "step" in record else None
    except json.JSONDecodeError:
        return None


class Stopwatch:
    """Seconds spent in named parts of a loop since the last `take`."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the time inside the `with` to `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Adds to `name` what was measured elsewhere."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def rest(self, name: str) -> None:
        """Adds to `name` what no part has had since the last `take`."""
        wall = time.perf_counter() - self._start
        self.add(name, wall - sum(self._seconds.values()))

    def take(self) -> tuple[float, dict[str, float]]:
        """Wall seconds since the last call and the part of each name; starts again."""
        now = time.perf_counter()
        wall, parts = now - self._start, self._seconds
        self._start, self._seconds = now, {}
        return wall, parts
