"""What cannot be written whole leaves what was there."""

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
    write_whole(path, "third\r\n")
    assert path.read_bytes() == b"third\r\n"
    assert [one.name for one in path.parent.iterdir()] == ["results.json"]
