"""What cannot be written whole leaves what was there."""

import os
import resource

import pytest

from ebt_jax.whole import write_whole


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path):
    """A real refusal: no file of this process may grow beyond 100 bytes for a while."""
    path, limits = tmp_path / "new" / "results.json", resource.getrlimit(resource.RLIMIT_FSIZE)
    write_whole(path, "first\n")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        with pytest.raises(OSError, match="too large"):
            write_whole(path, "second\n" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "first\n"
    assert [one.name for one in path.parent.iterdir()] == ["results.json"]
    write_whole(path, "third\r\n")
    assert path.read_bytes() == b"third\r\n"
    assert [one.name for one in path.parent.iterdir()] == ["results.json"]


def test_two_that_write_at_once_do_not_meet(tmp_path, monkeypatch):
    """The second begins and ends while the first has written and not yet renamed."""
    path, fsync = tmp_path / "results.json", os.fsync

    def meanwhile(file):
        monkeypatch.setattr(os, "fsync", fsync)
        write_whole(path, "second\n" * 2)
        assert path.read_text() == "second\n" * 2

    monkeypatch.setattr(os, "fsync", meanwhile)
    write_whole(path, "first\n")
    assert path.read_text() == "first\n"
    assert list(tmp_path.iterdir()) == [path]
