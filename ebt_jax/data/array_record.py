"""A dataset's shards as ArrayRecord files: the same records, byte for byte, each found without an index of ours.

One job a shard, each file whole or not at all; dataset_info.json is written last, so a conversion that was killed is no dataset
yet, and goes on where it stood.
"""

import json
import os
import pathlib
import uuid
from typing import NamedTuple

from absl import logging
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

from ebt_jax.data import jobs, records, remote
from ebt_jax.data.folder import Folder, Shard
from ebt_jax.data.spec import SPEC_FILE
from ebt_jax.whole import settle, write_whole

FILES = ("features.json", SPEC_FILE)
"""What is copied beside the shards, where it is there."""


class Task(NamedTuple):
    """One shard to rewrite as `path`."""

    shard: Shard
    file_format: str
    path: str


def to_array_record(folder: Folder, output: str | os.PathLike[str], runner: jobs.Runner | None = None) -> pathlib.Path:
    """Writes every split of `folder` to `output/NAME/VERSION` and returns that folder; it opens with tensorflow-datasets too.

    A folder that is complete already is left as it is. Raises ValueError for one in a bucket, FileExistsError where it is another
    dataset's, and what `records.scan` raises for a shard that is missing or damaged.
    """
    target = remote.on_disk("array_record", output) / folder.name / folder.version
    info = json.loads(remote.read_text(folder.path / "dataset_info.json")) | {"fileFormat": "array_record"}
    for split in info["splits"]:
        split.pop("filepathTemplate", None)
    if (target / "dataset_info.json").exists():
        if json.loads((target / "dataset_info.json").read_text()) != info:
            raise FileExistsError(f"array_record must be a folder without another dataset of this name and version, got {target}.")
        logging.info("%s is complete already", target)
        return target
    target.mkdir(parents=True, exist_ok=True)
    tasks = [
        Task(shard, folder.file_format, str(target / f"{folder.stem}-{split}.array_record-{number:05d}-of-{len(shards):05d}"))
        for split, shards in folder.splits.items()
        for number, shard in enumerate(shards)
    ]
    num_bytes = sum(size for size, _ in remote.stamps(folder.path).values())
    runner = runner or jobs.choose(num_bytes, len(tasks))
    for _ in jobs.say(runner(rewrite, tasks), len(tasks), f"rewriting {folder.name}"):
        pass
    for name in FILES:
        if remote.exists(folder.path / name):
            write_whole(target / name, remote.read_text(folder.path / name))
    write_whole(target / "dataset_info.json", json.dumps(info, indent=2))
    return target


def rewrite(task: Task) -> None:
    """One shard, every record checked on the way; groups of one record, so that reading one decompresses one."""
    path = pathlib.Path(task.path)
    if path.exists():
        return
    partial = path.with_name(f".{uuid.uuid4().hex}-{path.name}")
    writer = array_record_module.ArrayRecordWriter(str(partial), "group_size:1")
    try:
        for _, record in records.scan(task.shard, task.file_format):
            writer.write(record)
        writer.close()
        settle(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
