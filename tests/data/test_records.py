"""Records come back as written; a damaged file is an error that names file and record."""

import re

import numpy as np
import pytest
import toy_rlds
from etils import epath

from ebt_jax.data import records, remote
from ebt_jax.data.folder import Shard

RECORDS = [bytes([i]) * (100 + i) for i in range(4)]
WRITERS = {"tfrecord": toy_rlds.write_tfrecord, "array_record": toy_rlds.write_array_record}


def _shard(folder) -> Shard:
    toy_rlds.write_tfrecord(folder / "shard.tfrecord", RECORDS)
    return Shard(epath.Path(folder / "shard.tfrecord"), len(RECORDS))


@pytest.fixture(params=WRITERS)
def shard(request, tmp_path) -> tuple[Shard, str]:
    path = tmp_path / f"shard.{request.param}"
    WRITERS[request.param](path, RECORDS)
    return Shard(epath.Path(path), len(RECORDS)), request.param


def test_scan_yields_every_record_and_read_any_part(shard):
    file, file_format = shard
    found = list(records.scan(file, file_format))
    assert [record for _, record in found] == RECORDS
    for position, record in found:
        parts = [(offset, size, records.checksum(record[offset : offset + size])) for offset, size in ((0, 5), (50, 20))]
        assert records.read(str(file.path), file_format, position, parts) == [record[:5], record[50:70]]


def test_a_changed_part_is_noticed(shard):
    file, file_format = shard
    position = [at for at, _ in records.scan(file, file_format)][2]
    with pytest.raises(records.CorruptRecordError, match=f"{file.path.name}: record at {position} has changed at byte 7"):
        records.read(str(file.path), file_format, position, [(7, 10, 123)])


def test_a_missing_shard_is_named(tmp_path):
    for file_format in WRITERS:
        with pytest.raises(FileNotFoundError, match="no file at .*gone"):
            list(records.scan(Shard(epath.Path(tmp_path / "gone"), 1), file_format))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-3], r"record 3 is truncated: 104 of 107 bytes"),
        (lambda data: data[:121], r"record 1 is truncated: 5 of 12 bytes in its header"),
        (lambda data: data[:130] + b"\xff" + data[131:], r"record 1 is corrupt: its checksum"),
        (lambda data: data[:4] + b"\x01" + data[5:], r"record 0 is corrupt.* in its header"),
    ],
)
def test_tfrecord_damage_is_named(tmp_path, damage, message):
    path = tmp_path / "shard.tfrecord"
    toy_rlds.write_tfrecord(path, RECORDS)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(records.CorruptRecordError, match=rf"shard\.tfrecord: {message}"):
        list(records.scan(Shard(epath.Path(path), len(RECORDS)), "tfrecord"))


def test_array_record_damage_is_named(tmp_path):
    path = tmp_path / "shard.array_record"
    toy_rlds.write_array_record(path, [np.random.default_rng(seed).bytes(300_000) for seed in range(3)])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(records.CorruptRecordError, match=r"shard\.array_record: record \d is corrupt"):
        list(records.scan(Shard(epath.Path(path), 3), "array_record"))


def test_fewer_records_than_promised_are_noticed(shard):
    file, file_format = shard
    with pytest.raises(records.CorruptRecordError, match=r"must hold 5 records as dataset_info\.json says, got 4"):
        list(records.scan(Shard(file.path, 5), file_format))


def test_parts_of_remote_records_are_asked_for_together_and_nothing_else(tmp_path, bucket):
    (tmp_path / "data").mkdir()
    path, big = "gs://data/shard.tfrecord", [bytes([number]) * (1 << 20) for number in range(3)]
    toy_rlds.write_tfrecord(tmp_path / "data" / "shard.tfrecord", big)

    def part(number, offset):
        return (offset, 10, records.checksum(big[number][offset : offset + 10]))

    step = 12 + (1 << 20) + 4
    requests = [
        records.Request(path, 12 + 2 * step, [part(2, 500_000), part(2, 500_100)]),
        records.Request(path, 12, [part(0, 7)]),
        records.Request("gs://data/gone", 12, [part(0, 7)]),
        records.Request(path, 12, [(8, 10, 1)]),
    ]
    first, second, gone, changed = records.read_many("tfrecord", requests)
    assert (first, second) == ([bytes([2]) * 10] * 2, [bytes(10)])
    assert isinstance(gone, FileNotFoundError)
    assert "gs://data/gone must stay where it was indexed" in str(gone)
    assert isinstance(changed, records.CorruptRecordError)
    served = sorted((start, stop) for name, start, stop in bucket.reads if name == path)
    assert served == [(12 + 7, 12 + 18), (12 + 2 * step + 500_000, 12 + 2 * step + 500_110)]


@pytest.mark.parametrize("failures", [1, len(remote.WAITS_S)])
def test_a_bucket_that_is_busy_for_a_while_is_asked_again(tmp_path, bucket, monkeypatch, failures):
    waited, paths = [], _two_shards(tmp_path)
    monkeypatch.setattr(remote.time, "sleep", waited.append)
    bucket.failures[paths[1]] = failures
    assert records.read_many("tfrecord", [_whole_of(path) for path in paths]) == [[RECORDS[0]]] * 2
    assert waited == list(remote.WAITS_S[:failures])
    assert [path for path, _, _ in bucket.reads] == paths  # the first is not asked for again


def test_a_bucket_that_stays_busy_is_an_error_that_says_so(tmp_path, bucket, monkeypatch):
    waited, paths = [], _two_shards(tmp_path)
    monkeypatch.setattr(remote.time, "sleep", waited.append)
    bucket.failures[paths[1]] = 1_000
    first, second = records.read_many("tfrecord", [_whole_of(path) for path in paths])
    assert first == [RECORDS[0]]
    assert isinstance(second, OSError)
    assert re.search(r"gs://data/1\.tfrecord: record at 12 cannot be read: TimeoutError\('the bucket is busy'\)", str(second))
    assert 1_000 - bucket.failures[paths[1]] == 1 + len(waited) <= 5


def test_a_file_that_is_not_there_is_asked_for_once(bucket, monkeypatch):
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: pytest.fail("waited for nothing"))
    (gone,) = records.read_many("tfrecord", [_whole_of("gs://data/gone")])
    assert isinstance(gone, FileNotFoundError)


def _two_shards(tmp_path):
    (tmp_path / "data").mkdir()
    for number in range(2):
        toy_rlds.write_tfrecord(tmp_path / "data" / f"{number}.tfrecord", RECORDS)
    return [f"gs://data/{number}.tfrecord" for number in range(2)]


def _whole_of(path):
    """The first record of a file."""
    return records.Request(path, 12, [(0, len(RECORDS[0]), records.checksum(RECORDS[0]))])


def test_a_record_that_is_damaged_is_left_out_where_that_is_reported(tmp_path):
    shard, seen = _shard(tmp_path), []
    data = bytearray(shard.path.read_bytes())
    data[12] ^= 1
    shard.path.write_bytes(data)
    kept = [record for _, record in records.scan(shard, "tfrecord", lambda *fault: seen.append(fault))]
    assert kept == RECORDS[1:]
    ((kind, message, count),) = seen
    assert (kind, count) == ("damaged records", 1)
    assert "record 0 is corrupt" in message


def test_what_follows_a_damaged_length_is_lost_and_counted(tmp_path):
    shard, seen = _shard(tmp_path), []
    data = bytearray(shard.path.read_bytes())
    data[16 + len(RECORDS[0])] ^= 1  # the length of the second record
    shard.path.write_bytes(data)
    kept = [record for _, record in records.scan(shard, "tfrecord", lambda *fault: seen.append(fault))]
    assert kept == RECORDS[:1]
    assert [(kind, count) for kind, _, count in seen] == [("damaged records", 1), ("lost records", len(RECORDS) - 2)]
