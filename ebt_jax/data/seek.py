"""The n-th record of a shard that nobody has indexed: of a TFRecord, the headers before it are read and nothing else."""

import os
import struct

from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]
from etils import epath

from ebt_jax.data import remote
from ebt_jax.data.folder import Shard
from ebt_jax.data.records import CorruptRecordError, masked_checksum


def nth(shard: Shard, file_format: str, number: int) -> bytes:
    """Record `number`, checked.

    Raises FileNotFoundError for a missing shard and CorruptRecordError for a damaged or missing record.
    """
    if not remote.exists(shard.path):
        raise FileNotFoundError(f"every shard of a split must be there, got no file at {shard.path}. Is the copy complete?")
    return _of_tfrecord(shard.path, number) if file_format == "tfrecord" else _of_array_record(shard.path, number)


def _of_tfrecord(path: epath.Path, number: int) -> bytes:
    position = 0
    for _ in range(number):
        position += 16 + _size(_read(path, position, 12), path, number)  # header 12, checksum behind the record 4
    size = _size(_read(path, position, 12), path, number)
    body = _read(path, position + 12, size + 4)
    if len(body) < size + 4:
        raise CorruptRecordError(f"{path}: record {number} is truncated: {len(body)} of {size + 4} bytes. Copy it again.")
    if masked_checksum(body[:size]) != struct.unpack("<I", body[size:])[0]:
        raise CorruptRecordError(f"{path}: record {number} is corrupt: its checksum does not match. Copy it again.")
    return body[:size]


def _read(path: epath.Path, start: int, size: int) -> bytes:
    """So many bytes and no more, fewer at the file's end."""
    if not remote.is_remote(os.fspath(path)):
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(size)
    (found,) = remote.read_ranges([remote.Range(os.fspath(path), start, start + size)])
    if isinstance(found, Exception):
        raise found
    return found


def _size(header: bytes, path: epath.Path, number: int) -> int:
    if len(header) < 12 or masked_checksum(header[:8]) != struct.unpack("<I", header[8:])[0]:
        raise CorruptRecordError(f"{path}: record {number} cannot be found: its header or one before it is damaged. Copy it again.")
    return struct.unpack("<Q", header[:8])[0]


def _of_array_record(path: epath.Path, number: int) -> bytes:
    reader = array_record_module.ArrayRecordReader(os.fspath(path))
    try:
        return reader.read([number])[0]
    except RuntimeError as error:
        raise CorruptRecordError(f"{path}: record {number} is corrupt: {error}. Copy it again.") from error
    finally:
        reader.close()
