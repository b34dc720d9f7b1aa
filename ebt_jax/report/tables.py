"""Datasets in plain text: what lies in a folder, what a sample of one holds, what a mixture draws."""

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from ebt_jax.data import remote
from ebt_jax.data.oxe import describe, find_dataset
from ebt_jax.data.spec import DatasetSpec


def listing(data_dir: str) -> str:
    """What lies in a folder: datasets, versions, episodes, and what is known of their actions."""
    root = epath.Path(data_dir).expanduser()
    if not remote.exists(root):
        raise FileNotFoundError(f"data_dir must be a folder or a bucket's path, got {data_dir}, which is not there.")
    rows, notes = [["dataset", "version", "episodes", "files", "format", "Hz", "cameras", "action"]], []
    for path in sorted(remote.folders(root)):
        try:
            folder = find_dataset(data_dir, path.name)
        except (FileNotFoundError, ValueError) as error:
            notes.append(f"{path.name}: {str(error).splitlines()[0]}")
            continue
        counts = {split: folder.num_records(split) for split in folder.splits}
        episodes, files = " ".join(f"{split} {count:,}" for split, count in counts.items()), sum(map(len, folder.splits.values()))
        known = ["", "", ""]
        try:
            spec = describe(folder).spec
            known = [f"{spec.control_rate_hz:g}" if spec.control_rate_hz else "unknown", ",".join(spec.cameras) or "none", _summary(spec)]
        except ValueError as error:
            notes.append(str(error))
        rows.append([folder.name, folder.version, episodes, f"{files:,}", folder.file_format, *known])
    if len(rows) == 1:
        raise FileNotFoundError(f"data_dir must hold RLDS datasets, one folder each, got none in {data_dir}. " + " ".join(notes))
    return "\n".join([_aligned(rows), *notes])


def _summary(spec: DatasetSpec) -> str:
    return " ".join(f"{d.name} [{d.unit}]" if d.unit else d.name for d in spec.action) + f", frame {spec.action_frame}"


def dataset_table(tree: Mapping[str, Any]) -> str:
    """What `facts` found in one dataset."""
    rate = f"{tree['control_rate_hz']:g} Hz" if tree["control_rate_hz"] else "control rate unknown"
    lengths = "steps an episode {min} to {max}, mean {mean:.4g}".format(**tree["lengths"])
    columns = ("mean", "std", "min", "q01", "q99", "max")
    rows = [["", "", "unit", *columns]]
    for part in ("action", "proprio"):
        for row in tree[part]:
            rows.append([part, row["name"], row["unit"], *(f"{row[key]:.4g}" for key in columns)])
    cameras = (f"{name} ({seen['feature']}, {', '.join(seen['sizes'])})" for name, seen in tree["cameras"].items())
    said = list(tree["language"]["samples"])
    return "\n".join(
        [
            f"{tree['dataset']} {tree['version']}: {', '.join(f'{split} {count:,}' for split, count in tree['splits'].items())} episodes",
            f"sampled {tree['sampled']['what']}",
            f"{lengths}, {rate}, frame {tree['action_frame']}",
            f"cameras: {', '.join(cameras) or 'none'}",
            f"language: {tree['language']['distinct']} instructions" + (f", {said[0]!r} the commonest" if said else ""),
            *(f"gripper {hand['name']}: {hand['verdict']}" for hand in tree["gripper"]),
            _aligned(rows),
            *(f"look at: {note}" for note in tree["warnings"]),
        ]
    )


def mixture_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What `mixture_rows` found, one line a dataset."""
    return _aligned([[*rows[0]], *([_short(value) for value in row.values()] for row in rows)])


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
