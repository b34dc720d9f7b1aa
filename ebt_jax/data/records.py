"""Records of TFRecord and ArrayRecord files: all of them in order, checked, or any part of any one of them.

A TFRecord is  length (8 bytes), its checksum (4), the record, its checksum (4),  with masked CRC-32C checksums. It has no
table of contents: `scan` walks it once, and what it yields is enough to read any byte of it later. An ArrayRecord has one, and
checks itself, but yields whole records only; its own reader, not fsspec, fetches those of a gs:// bucket, by ranges.
"""

import functools
import io
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import google_crc32c
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]
from etils import epath

from ebt_jax.data import remote
from ebt_jax.data.folder import Shard

Report = Callable[[str, str, int], None]
"""(kind of fault, message, how many)."""


class Request(NamedTuple):
    """Some (offset, size, checksum) `parts` of the record at `position` of a file."""

    path: str
    position: int
    parts: Sequence[tuple[int, int, int]]


class CorruptRecordError(ValueError):
    """A file does not hold what was written; the message names the file and the record."""


def checksum(data: bytes) -> int:
    """CRC-32C, 32 bits."""
    return google_crc32c.value(data)


def masked_checksum(data: bytes) -> int:
    """CRC-32C as TFRecord stores it: rotated and shifted, because checksums of checksums are weak."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def scan(shard: Shard, file_format: str, report: Report | None = None) -> Iterator[tuple[int, bytes]]:
    """(position, record) of every record, in order, each checked. `position` is what `read` wants.

    Without `report`, raises FileNotFoundError for a missing shard and CorruptRecordError for a truncated or damaged one, or one
    with more or fewer records than dataset_info.json promises. With it, what cannot be read is reported and left out: a record
    whose own bytes are damaged alone, everything behind one whose length is.
    """
    count, missing = 0, not remote.exists(shard.path)
    if missing:
        message = f"every shard of a split must be there, got no file at {shard.path}. Is the copy complete?"
        if report is None:
            raise FileNotFoundError(message)
        report("missing shards", message, 1)
    records = () if missing else _scan_tfrecord(shard.path) if file_format == "tfrecord" else _scan_array_record(shard.path)
    for position, record in records:
        if isinstance(record, bytes):
            count += 1
            yield position, record
        elif report is None:
            raise record
        else:
            report("damaged records", str(record), 1)
            count += 1
    if count != shard.num_records:
        message = f"{shard.path} must hold {shard.num_records} records as dataset_info.json says, got {count}. Copy it again."
        if report is None or count > shard.num_records:
            raise CorruptRecordError(message)
        report("lost records", message, shard.num_records - count)


def read(path: str, file_format: str, position: int, parts: Sequence[tuple[int, int, int]]) -> list[bytes]:
    """The (offset, size, checksum) `parts` of the record at `position`, without reading the rest of a TFRecord.

    Raises CorruptRecordError where a part is no longer what the index saw, FileNotFoundError where the file has gone.
    """
    (found,) = read_many(file_format, [Request(path, position, parts)])
    if isinstance(found, Exception):
        raise found
    return found


def read_many(file_format: str, requests: Sequence[Request]) -> list[list[bytes] | Exception]:
    """The parts of every request, or what `read` would raise; requests to a bucket are all under way at the same time."""
    if file_format == "tfrecord" and requests and remote.is_remote(requests[0].path):
        ranges = [
            remote.Range(path, position + offset, position + offset + size)
            for path, position, parts in requests
            for offset, size, _ in parts
        ]
        blocks = iter(remote.read_ranges(ranges))
        return [_checked(request, [next(blocks) for _ in request.parts]) for request in requests]
    return [_checked(request, _read_local(request, file_format)) for request in requests]


def forget() -> None:
    """Closes what is open, so that files that were replaced since are read anew."""
    _array_record.cache_clear()
    _local_file.cache_clear()


def _read_local(request: Request, file_format: str) -> Sequence[bytes | Exception]:
    path, position, parts = request
    try:
        if file_format == "tfrecord":
            file = _local_file(path)  # held until the reads are done, or another thread's miss could close it
            return [os.pread(file.fileno(), size, position + offset) for offset, size, _ in parts]
        record = _whole(path, position)
        return [record[offset : offset + size] for offset, size, _ in parts]
    except (OSError, CorruptRecordError) as error:
        return [error]


def _checked(request: Request, found: Sequence[bytes | Exception]) -> list[bytes] | Exception:
    path, position, parts = request
    checked: list[bytes] = []
    for data, (offset, _, expected) in zip(found, parts, strict=False):
        if isinstance(data, FileNotFoundError):
            return FileNotFoundError(f"{path} must stay where it was indexed, got no such file. Bring it back.")
        if isinstance(data, Exception):
            return data if isinstance(data, CorruptRecordError) else OSError(f"{path}: record at {position} cannot be read: {data!r}")
        if checksum(data) != expected:
            return CorruptRecordError(f"{path}: record at {position} has changed at byte {offset} since it was indexed. Copy it again.")
        checked.append(data)
    return checked


def _scan_tfrecord(path: epath.Path) -> Iterator[tuple[int, bytes | CorruptRecordError]]:
    """Every record or what is wrong with it; nothing follows one whose end is not known."""
    with remote.open_file(path) as file:
        number, position = 0, 0
        while header := file.read(12):
            if len(header) < 12 or masked_checksum(header[:8]) != struct.unpack("<I", header[8:])[0]:
                yield position, CorruptRecordError(f"{path}: record {number} is {_fault(header, 12)} in its header. Copy it again.")
                return
            (size,) = struct.unpack("<Q", header[:8])
            body = file.read(size + 4)
            if len(body) < size + 4 or masked_checksum(body[:size]) != struct.unpack("<I", body[size:])[0]:
                yield position, CorruptRecordError(f"{path}: record {number} is {_fault(body, size + 4)}. Copy it again.")
            else:
                yield position + 12, body[:size]
            position += 12 + size + 4
            number += 1


def _fault(data: bytes, expected: int) -> str:
    return f"truncated: {len(data)} of {expected} bytes" if len(data) < expected else "corrupt: its checksum does not match"


def _scan_array_record(path: epath.Path) -> Iterator[tuple[int, bytes | CorruptRecordError]]:
    try:
        count = _array_record(os.fspath(path)).num_records()
    except CorruptRecordError as error:
        yield 0, error
        return
    for number in range(count):
        try:
            yield number, _whole(os.fspath(path), number)
        except CorruptRecordError as error:
            yield number, error


def _whole(path: str, number: int) -> bytes:
    try:
        return _array_record(path).read([number])[0]
    except RuntimeError as error:
        if not remote.exists(epath.Path(path)):
            raise FileNotFoundError(path) from error
        raise CorruptRecordError(f"{path}: record {number} is corrupt: {error}. Copy it again.") from error


@functools.lru_cache(maxsize=256)
def _array_record(path: str) -> array_record_module.ArrayRecordReader:
    away = remote.is_remote(path)
    if away and not path.startswith("gs://"):
        raise ValueError(f"array_record files must lie on a disk, a bucket mounted as one, or in gs://, got {path}. Keep TFRecord there.")
    if not remote.exists(epath.Path(path)):  # the reader would open it as an empty file, or ask for it again and again
        raise FileNotFoundError(path)
    try:
        return array_record_module.ArrayRecordReader(path, "readahead_buffer_size:0,max_parallelism:0" if away else "")
    except RuntimeError as error:
        raise CorruptRecordError(f"{path} is no array_record file: {error}. Copy it again.") from error


@functools.lru_cache(maxsize=256)
def _local_file(path: str) -> io.FileIO:
    """A cached open file; one that falls out of the cache closes when its last reader lets go."""
    return open(path, "rb", buffering=0)
