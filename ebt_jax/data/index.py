"""A split as columns, one row a step: actions and states themselves, and where in which record each image lies.

Reading every record once, with its checksum, gives everything that training asks for ever after: windows of actions are slices
of a column, statistics are a pass over one, and a frame is one short read. The columns are memory-mapped files in a cache
folder, so they cost no memory to open, and the processes of one machine share them.
"""

import dataclasses
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping

import numpy as np
from absl import logging
from etils import epath
from numpy.typing import NDArray

from ebt_jax.data import jobs, remote
from ebt_jax.data.build import build, dtype_of, plan
from ebt_jax.data.faults import OnBad
from ebt_jax.data.folder import Folder
from ebt_jax.data.scan import EPISODE, check_features
from ebt_jax.data.standardize import Entry
from ebt_jax.whole import write_whole


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """One split of one dataset; equal only to itself, so that what is derived from it can be cached.

    Attributes:
      episodes: [n] of `EPISODE`, in file order.
      columns: "action" [N a] and "proprio" [N p] float32 in robot units; "text" [N] and "paraphrases" [N k] int32 into `texts`;
        "embedding" and each camera [N] of `PART`. Absent where the spec has none.
      texts: the distinct instructions, paraphrases among them.
      files: the shards, by the number in `episodes`.
      file_format: as `records.read` wants it.
      cache: the folder of these columns.
      faults: what was left out because it could not be read or used: kind -> how many.
    """

    episodes: NDArray
    columns: Mapping[str, NDArray]
    texts: tuple[str, ...]
    files: tuple[str, ...]
    file_format: str
    cache: pathlib.Path
    faults: Mapping[str, int] = dataclasses.field(default_factory=dict)


def open_index(
    folder: Folder,
    split: str,
    entry: Entry,
    cache_dir: str = "",
    on_bad: OnBad = "raise",
    runner: jobs.Runner | None = None,
    parts_dir: str = "",
) -> Index:
    """The index of a split: from the cache where files, spec and conversion are unchanged, else built, which reads every byte once.

    The cache lies in `cache_dir`, or $EBT_JAX_CACHE, or beside the data (`.ebt_index`), or where that is not writable in
    ~/.cache/ebt_jax. `runner` is who builds (default: as many processes as there are cores, where the data are large), `parts_dir`
    where shards' parts lie meanwhile (default: in the cache).

    Raises ValueError for a split that is missing or empty, or a feature that the spec names and the folder lacks. A missing shard
    (FileNotFoundError), a damaged record (CorruptRecordError) and a value that is not finite (ValueError) are raised too, or with
    `on_bad` "skip" left out and counted.
    """
    if split not in folder.splits:
        raise ValueError(f"split of {folder.name!r} must be one of {sorted(folder.splits)}, got {split!r}.")
    shards = folder.splits[split]
    if sum(shard.num_records for shard in shards) == 0:
        raise ValueError(f"split {split!r} of {folder.path} must hold at least one episode, got none.")
    check_features(folder, entry)
    work = plan(folder, split, entry, on_bad)
    name = f"{folder.name}-{folder.version}-{split}-{work.digest}"
    roots = _roots(folder.path, cache_dir)
    cache = next((root / name for root in roots if (root / name).exists()), None)
    if cache is None:
        cache = build(work, name, _writable(roots), on_bad, runner, parts_dir)
    tree = json.loads((cache / "index.json").read_text())
    counts = tree["faults"]["counts"]
    if counts and on_bad == "raise":
        messages = [message for messages in tree["faults"]["messages"].values() for message in messages]
        raise ValueError(
            f"split {split!r} of {folder.name!r} must be whole, got {counts}, among them:\n  " + "\n  ".join(messages) + "\n"
            'Repair these files; or train on the rest, with what is left out counted: data.on_bad="skip".'
        )
    return Index(
        episodes=np.fromfile(cache / "episodes", EPISODE),
        columns={key: np.asarray(np.memmap(cache / key, dtype_of(key), "r", shape=tuple(shape))) for key, shape in tree["columns"].items()},
        texts=tuple(tree["texts"]),
        files=tuple(os.fspath(shard.path) for shard in shards),
        file_format=folder.file_format,
        cache=cache,
        faults=counts,
    )


def keep(path: pathlib.Path, text: str) -> None:
    """Writes a file into an index, whole or not at all; where the index is read-only or the disk is full, not at all."""
    try:
        write_whole(path, text)
    except OSError as error:
        logging.info("%s is not kept: %s", path, error)


def _roots(path: epath.Path, cache_dir: str) -> list[pathlib.Path]:
    """Where an index may lie, the preferred place first."""
    chosen = cache_dir or os.environ.get("EBT_JAX_CACHE", "")
    if chosen:
        return [remote.on_disk("cache_dir" if cache_dir else "EBT_JAX_CACHE", chosen).expanduser()]
    beside, home = os.fspath(path / ".ebt_index"), pathlib.Path.home() / ".cache" / "ebt_jax"
    return [home] if remote.is_remote(beside) else [pathlib.Path(beside), home]


def _writable(roots: list[pathlib.Path]) -> pathlib.Path:
    for root in roots:
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root):
                return root
        except OSError:
            continue
    places = " or ".join(str(root) for root in roots)
    raise PermissionError(f"the index of a dataset must be written to {places}, got no right to. Set $EBT_JAX_CACHE to a folder of yours.")
