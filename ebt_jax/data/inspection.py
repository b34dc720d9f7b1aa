"""What a dataset holds, from a few episodes: numbers in robot units, pictures, language, and what looks wrong.

Nothing is indexed. Episodes are drawn at random from all shards and read one by one, so a bucket of terabytes costs a few hundred
megabytes. Everything here is about the sample, and says so.
"""

import dataclasses
import functools
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ebt_jax.data import records, seek
from ebt_jax.data.batches import decode
from ebt_jax.data.folder import Folder
from ebt_jax.data.index import Index
from ebt_jax.data.scan import EPISODE, check_features, read_columns
from ebt_jax.data.settings import DataSettings
from ebt_jax.data.spec import DatasetSpec
from ebt_jax.data.splits import held_out
from ebt_jax.data.standardize import Entry
from ebt_jax.normalize import VectorStatistics

FRAMES = 8
"""Pictures of an episode that are looked at, evenly spaced."""
BINS = 40


@dataclasses.dataclass(frozen=True)
class Episode:
    """One sampled demonstration, robot units.

    Attributes:
      frames: camera -> `FRAMES` pictures, fewer of a shorter episode.
      place: file and record, for messages.
      checksum: of the record, as an index has it.
    """

    actions: Float[np.ndarray, "t a"]
    proprio: Float[np.ndarray, "t p"]
    frames: Mapping[str, Sequence[UInt8[np.ndarray, "y x 3"]]]
    instruction: str
    place: str
    checksum: int


@dataclasses.dataclass(frozen=True)
class Sample:
    """The episodes that were drawn, what they cost, and the records among them that cannot be used, with the reason."""

    folder: Folder
    split: str
    spec: DatasetSpec
    episodes: tuple[Episode, ...]
    faults: tuple[str, ...]
    shards: int
    bytes_read: int

    @property
    def num_episodes(self) -> int:
        """All episodes of the split, as dataset_info.json says."""
        return self.folder.num_records(self.split)

    def describe(self) -> str:
        """What was sampled, in a sentence."""
        files = len(self.folder.splits[self.split])
        drawn = len(self.episodes) + len(self.faults)
        return f"{drawn} of {self.num_episodes:,} episodes, from {self.shards} of {files:,} files, {self.bytes_read / 1e6:,.1f} MB read"

    @functools.cached_property
    def actions(self) -> Float[np.ndarray, "n a"]:
        return np.concatenate([episode.actions for episode in self.episodes])

    @functools.cached_property
    def proprio(self) -> Float[np.ndarray, "n p"]:
        return np.concatenate([episode.proprio for episode in self.episodes])

    @property
    def lengths(self) -> list[int]:
        return [len(episode.actions) for episode in self.episodes]


def sample(folder: Folder, entry: Entry, split: str, episodes: int, seed: int = 0) -> Sample:
    """At most so many episodes of a split, drawn evenly from all of its records.

    Raises ValueError for a split that is missing or empty, a feature that the spec names and the folder lacks, or where no drawn
    record can be used; FileNotFoundError for a missing shard.
    """
    if not folder.num_records(split):
        full = sorted(name for name in folder.splits if folder.num_records(name))
        raise ValueError(f"split of {folder.name!r} must be one that holds episodes, {full}, got {split!r}.")
    check_features(folder, entry)
    shards = folder.splits[split]
    ends = np.cumsum([shard.num_records for shard in shards])
    total = int(ends[-1])
    drawn = np.sort(np.random.default_rng(seed).choice(total, min(episodes, total), replace=False))
    found, faults, size, files = [], [], 0, set()
    for number in drawn.tolist():
        file = int(np.searchsorted(ends, number, side="right"))
        place = number - int(ends[file]) + shards[file].num_records
        files.add(file)
        try:
            record = seek.nth(shards[file], folder.file_format, place)
            size += len(record)
            found.append(_episode(record, folder, entry, f"{shards[file].path.name} record {place}"))
        except ValueError as error:
            faults.append(f"{shards[file].path.name} record {place}: {error}")
    if not found:
        raise ValueError(f"at least one of {len(drawn)} sampled episodes of {folder.path} must be usable, got faults in all: {faults[0]}")
    return Sample(folder, split, entry.spec, tuple(found), tuple(faults), len(files), size)


def _episode(record: bytes, folder: Folder, entry: Entry, place: str) -> Episode:
    columns = read_columns(record, folder, entry)
    steps = len(columns["action"])
    if not steps:
        raise ValueError("an episode must have at least one step, got none.")
    shown = np.unique(np.linspace(0, steps - 1, FRAMES).round().astype(int))
    frames = {
        camera: [decode(record[part["offset"] : part["offset"] + part["size"]]) for part in columns[camera][shown]]
        for camera in entry.spec.cameras
    }
    return Episode(
        actions=columns["action"],
        proprio=columns.get("proprio", np.zeros((steps, 0), np.float32)),
        frames=frames,
        instruction=str(columns["text"][-1]) if "text" in columns else "",
        place=place,
        checksum=records.checksum(record),
    )


def facts(found: Sample) -> dict[str, Any]:
    """Everything that is known of a sample, as plain values: the object that inspection.json holds."""
    spec, lengths = found.spec, np.array(found.lengths)
    action = _numbers(found.actions, [dataclasses.asdict(dimension) for dimension in spec.action])
    proprio = _numbers(found.proprio, [dataclasses.asdict(dimension) for dimension in spec.proprio])
    tree = {
        "dataset": found.folder.name,
        "version": found.folder.version,
        "path": str(found.folder.path),
        "file_format": found.folder.file_format,
        "splits": {name: found.folder.num_records(name) for name in found.folder.splits},
        "sampled": {
            "split": found.split,
            "episodes": len(found.episodes),
            "unusable": len(found.faults),
            "steps": int(lengths.sum()),
            "files": found.shards,
            "bytes": found.bytes_read,
            "what": found.describe(),
        },
        "lengths": {
            "mean": float(lengths.mean()),
            "min": int(lengths.min()),
            "median": float(np.median(lengths)),
            "max": int(lengths.max()),
        },
        "steps_in_all_about": round(float(lengths.mean()) * found.num_episodes),
        "control_rate_hz": spec.control_rate_hz,
        "action_frame": spec.action_frame,
        "action": action,
        "proprio": proprio,
        "gripper": grippers(found),
        "cameras": _cameras(found),
        "language": _language(found),
        "faults": list(found.faults),
    }
    return {**tree, "warnings": warnings(tree)}


def grippers(found: Sample) -> list[dict[str, Any]]:
    """For each gripper of the action: does the state's gripper go where the action says, 1 = open?

    `agreement` is the share of the movements of the state's gripper (more than 2 % of its range within `steps` steps, a tenth of a
    second) that go towards the side of 1/2 on which the action is when they begin. `repeats` is the share of the action's changes at
    which the state, each taken over its own range, is the same number before and after: such an action was read off the state, so
    that it says nothing of the steps after it. Where the state has no gripper, `starts_open` is all there is: most demonstrations begin
    with an open hand.
    """
    spec, results = found.spec, []
    names = [dimension.name for dimension in spec.action if dimension.kind == "gripper"]
    for at, dimension in enumerate(spec.action):
        if dimension.kind != "gripper":
            continue
        prefix = dimension.name.removesuffix("gripper") if len(names) > 1 else ""
        moved, agreed, changed, same, lag = 0, 0, 0, 0, max(1, round(0.1 * (spec.control_rate_hz or 10)))
        openings = [opening(spec, episode.proprio, prefix) for episode in found.episodes]
        measured = [values for values in openings if values is not None]
        least, span = _range(measured)
        low, reach = _range([episode.actions[:, at] for episode in found.episodes])
        for episode, values in zip(found.episodes, openings, strict=True):
            if values is None or len(values) <= lag or span == 0:
                continue
            change, side = values[lag:] - values[:-lag], episode.actions[:-lag, at] - 0.5
            moves = (np.abs(change) > 0.02 * span) & (np.abs(side) > 0.1)
            moved += int(moves.sum())
            agreed += int((change[moves] * side[moves] > 0).sum())
            if reach > 0:
                said, is_open = (episode.actions[:, at] - low) / reach, (values - least) / span
                changes, equal = np.abs(np.diff(said)) > 0.02, np.abs(said - is_open) < 0.005
                changed += int(changes.sum())
                same += int((changes & equal[:-1] & equal[1:]).sum())
        starts_open = float(np.mean([episode.actions[0, at] > 0.5 for episode in found.episodes]))
        agreement, repeats = agreed / moved if moved else None, same / changed if changed else 0.0
        results.append(
            {
                "name": dimension.name,
                "in_state": bool(measured),
                "steps": lag,
                "moves": moved,
                "agreement": agreement,
                "repeats": repeats,
                "starts_open": starts_open,
                "verdict": _verdict(bool(measured), moved, agreement, repeats, starts_open),
            }
        )
    return results


PLACES = ("_x", "_y", "_z", "_qx", "_qy", "_qz", "_qw", "_roll", "_pitch", "_yaw")
"""Ends of names that say where a gripper is, not how far open."""


def opening(spec: DatasetSpec, proprio: Float[np.ndarray, "t p"], prefix: str = "") -> Float[np.ndarray, " t"] | None:
    """How far the state's gripper is open, in whatever unit it has; None where the state has none.

    Fingers count by their distance from 0, what calls itself closed counts backwards.
    """
    named = {i: d.name for i, d in enumerate(spec.proprio) if d.name.startswith(prefix)}
    fingers = [i for i, name in named.items() if "finger" in name]
    if fingers:
        return np.abs(proprio[:, fingers]).sum(axis=1)
    hands = [i for i, name in named.items() if ("gripper" in name or "opening" in name) and not name.endswith(PLACES)]
    hands.sort(key=lambda i: "opening" not in named[i] and "width" not in named[i])
    if not hands:
        return None
    values = proprio[:, hands[0]]
    return -values if "closed" in named[hands[0]] else values


def _range(columns: Sequence[Float[np.ndarray, " _"]]) -> tuple[float, float]:
    """The smallest number, and how far above it the largest lies."""
    numbers = np.concatenate(columns) if columns else np.zeros(1)
    return float(numbers.min()), float(np.ptp(numbers))


def _verdict(in_state: bool, moved: int, agreement: float | None, repeats: float, starts_open: float) -> str:
    if agreement is not None and moved >= 10:
        if repeats >= 0.7:
            return f"REPEATS THE STATE: at {100 * repeats:.0f} % of its changes it is the state's of the same step, so it commands nothing"
        if agreement >= 0.7:
            return f"agrees with the state: {100 * agreement:.0f} % of {moved} movements go where the action says"
        if agreement <= 0.3:
            return f"LOOKS INVERTED: only {100 * agreement:.0f} % of {moved} movements of the state go where the action says"
        return f"unclear: {100 * agreement:.0f} % of {moved} movements of the state go where the action says"
    why = f"the state's gripper moves in {moved} steps only" if in_state else "the state has no gripper"
    if starts_open <= 0.1:
        return f"may be inverted: {why}, and {100 * (1 - starts_open):.0f} % of the episodes begin closed"
    return f"not checked: {why}; {100 * starts_open:.0f} % of the episodes begin open"


def _numbers(values: Float[np.ndarray, "n d"], dimensions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Statistics, histogram and oddities of each dimension."""
    if not dimensions:
        return []
    moments, results = VectorStatistics.of(values), []
    for i, dimension in enumerate(dimensions):
        low, high = float(moments.min[i]), float(moments.max[i])
        largest = max(abs(low), abs(high))
        pad = max(0.5, 1e-6 * abs(low)) if high - low <= 1e-6 * largest else 0.0  # nothing but the noise of float32
        counts, edges = np.histogram(values[:, i].astype(np.float64), BINS, (low - pad, high + pad))
        numbers = {name: float(getattr(moments, name)[i]) for name in ("mean", "std", "min", "max", "q01", "q99")}
        least, most = (np.nan if dimension.get(side) is None else dimension[side] for side in ("low", "high"))
        slack = float(np.nan_to_num(1e-3 * (most - least)))
        beyond = float(np.mean(values[:, i] < least - slack)) + float(np.mean(values[:, i] > most + slack))
        constant = high - low <= max(1e-4 * largest, 1e-6)
        histogram = {"counts": counts.tolist(), "edges": edges.tolist()}
        results.append({**dimension, **numbers, "constant": bool(constant), "beyond_limits": beyond, "histogram": histogram})
    return results


def _cameras(found: Sample) -> dict[str, dict[str, Any]]:
    """Each camera of the spec: its feature, size, and the share of the pictures looked at that are black, which means missing."""
    results = {}
    for camera, feature in found.spec.cameras.items():
        frames = [frame for episode in found.episodes for frame in episode.frames[camera]]
        sizes = Counter(f"{frame.shape[1]} x {frame.shape[0]}" for frame in frames)
        results[camera] = {
            "feature": feature,
            "sizes": dict(sizes),
            "pictures": len(frames),
            "black": float(np.mean([frame.max() == 0 for frame in frames])),
        }
    return results


def _language(found: Sample) -> dict[str, Any]:
    said = Counter(episode.instruction.strip() for episode in found.episodes)
    return {
        "feature": found.spec.language_key,
        "embedding": found.spec.embedding_key,
        "empty": said.get("", 0) / len(found.episodes),
        "distinct": len(set(said) - {""}),
        "samples": {text: count for text, count in said.most_common(20) if text},
    }


def warnings(tree: Mapping[str, Any]) -> list[str]:
    """What a person should look at before training, one sentence each."""
    wrong = ("may be inverted", "LOOKS INVERTED", "REPEATS THE STATE")
    found = [f"gripper {hand['name']!r} {hand['verdict']}" for hand in tree["gripper"] if hand["verdict"].startswith(wrong)]
    found += [f"gripper {hand['name']!r} is {hand['verdict']}" for hand in tree["gripper"] if hand["verdict"].startswith("unclear")]
    for part in ("action", "proprio"):
        rows: list[Mapping[str, Any]] = tree[part]
        still = [row["name"] for row in rows if row["constant"]]
        found += [f"{part} never moves in {', '.join(still)}"] if still else []
        found += [
            f"{part} {row['name']!r} is beyond its limits in {100 * row['beyond_limits']:.2g} % of the steps"
            for row in rows
            if row["beyond_limits"]
        ]
        unknown = [row["name"] for row in rows if row["unit"] == "unknown"]
        found += [f"unit of {part} {', '.join(unknown)} is unknown"] if unknown else []
    for camera, seen in tree["cameras"].items():
        if seen["black"]:
            found.append(f"camera {camera} ({seen['feature']}) is black in {100 * seen['black']:.3g} % of {seen['pictures']} pictures")
    absent = [camera for camera in ("primary", "secondary", "wrist") if camera not in tree["cameras"]]
    found += [f"no {' and no '.join(absent)} camera"] if absent else []
    if tree["language"]["feature"] and tree["language"]["empty"]:
        found.append(f"{100 * tree['language']['empty']:.3g} % of the episodes have an empty instruction")
    found += ["no language"] if not tree["language"]["feature"] and not tree["language"]["embedding"] else []
    found += ["control rate is unknown"] if tree["control_rate_hz"] is None else []
    found += ["frame of the action is unknown"] if tree["action_frame"] == "unknown" else []
    found += [f"shortest episode has {tree['lengths']['min']} step"] if tree["lengths"]["min"] < 2 else []
    return found + [f"unusable: {fault}" for fault in tree["faults"]]


def mixture_rows(samples: Sequence[Sample], settings: DataSettings) -> list[dict[str, Any]]:
    """What a run with these settings would see of each dataset, the samples in the order of the settings' weights.

    Steps, and what follows from them, are by the sample's mean length.
    """
    steps = [float(np.mean(found.lengths)) * found.num_episodes for found in samples]
    factors = steps if settings.weighting == "transitions" else [1.0] * len(samples)
    weights = [weight * factor for weight, factor in zip(settings.weights.values(), factors, strict=True)]
    rows = []
    for found, count, weight in zip(samples, steps, weights, strict=True):
        out, share = held_out_share(found, settings), weight / sum(weights)
        rows.append(
            {
                "dataset": found.folder.name,
                "version": found.folder.version,
                "share": share,
                "episodes": found.num_episodes,
                "steps_about": round(count),
                "held_out": out,
                "epochs_per_million_windows": 1e6 * share / max(count * (1 - out), 1.0),
            }
        )
    return rows


def held_out_share(found: Sample, settings: DataSettings) -> float:
    """Share of the sampled episodes that these settings hold out of training."""
    episodes = np.zeros(len(found.episodes), EPISODE)
    episodes["checksum"] = [episode.checksum for episode in found.episodes]
    index = Index(episodes, {}, (), (), found.folder.file_format, pathlib.Path())
    return float(held_out(index, found.folder.stem, settings).mean())
