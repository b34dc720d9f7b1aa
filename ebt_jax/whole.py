"""Files that are on disk whole or not at all."""

import os
import pathlib
import uuid


def write_whole(path: pathlib.Path, text: str) -> None:
    """Writes beside `path` and renames: a kill, a full disk or a power cut leaves what was there before. Makes the folder.

    Of several processes or hosts that write at the same time each writes a file of its own, and the last rename stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}-{uuid.uuid4().hex}.part")
    try:
        with part.open("w", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def settle(path: pathlib.Path) -> None:
    """Has the system put a file's bytes on disk: before a rename after which the file counts as whole, whatever the power does."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
