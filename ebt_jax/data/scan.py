"""One pass over a shard: actions and states of every step, and where each step's images and embedding lie."""

import re
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebt_jax.data import example, records
from ebt_jax.data.folder import Feature, Folder, Shard
from ebt_jax.data.standardize import Entry, check_grippers

EPISODE = np.dtype(
    [("shard", "<i4"), ("position", "<i8"), ("start", "<i8"), ("length", "<i4"), ("checksum", "<u4"), ("size", "<i8"), ("success", "i1")]
)
"""Which record an episode is, its first row and number of rows, the CRC-32C and bytes of the record, which identify it, and
whether its dataset says that it succeeded (1), failed (0) or nothing (-1)."""

PART = np.dtype([("offset", "<i8"), ("size", "<i4"), ("checksum", "<u4")])
"""Where one step's image or embedding lies in its record."""


_SUCCESS = re.compile(r"(?<![^\W\d_])success")


class Scan(NamedTuple):
    """One shard.

    Attributes:
      episodes: of `EPISODE`, rows counted from 0, shard left 0.
      columns: those of `Index`; "text" and "paraphrases" count in `texts`.
      texts: the distinct instructions of this shard.
    """

    episodes: NDArray
    columns: dict[str, NDArray]
    texts: tuple[str, ...]


def scan_shard(folder: Folder, shard: Shard, entry: Entry, report: records.Report | None = None) -> Scan:
    """Every episode of a shard.

    Without `report`, raises CorruptRecordError for a damaged record and ValueError for one whose values cannot be used; both name
    file and record. With it, such episodes are reported and left out.
    """
    episodes, parts, start = [], [], 0
    texts: dict[str, int] = {}
    for number, (position, record) in enumerate(records.scan(shard, folder.file_format, report)):
        try:
            columns, success = _columns(record, folder, entry)
        except ValueError as error:
            message = f"{shard.path}: record {number}: {error}"
            if report is None:
                raise ValueError(message) from error
            report("unusable episodes", message, 1)
            continue
        for key in ("text", "paraphrases"):
            if key in columns:
                flat = [texts.setdefault(text, len(texts)) for text in columns[key].ravel()]
                columns[key] = np.array(flat, "<i4").reshape(columns[key].shape)
        length = len(columns["action"])
        episodes.append((0, position, start, length, records.checksum(record), len(record), success))
        parts.append(columns)
        start += length
    joined = {key: np.concatenate([part[key] for part in parts]) for key in (parts[0] if parts else ())}
    return Scan(np.array(episodes, EPISODE), joined, tuple(texts))


def check_features(folder: Folder, entry: Entry) -> None:
    """Raises ValueError where the spec names a feature that the folder lacks or that cannot be used, listing those it has."""
    spec = entry.spec
    language = folder.steps.get(spec.language_key)
    coded = bool(language) and language.kind == "tensor" and language.dtype.startswith("int")
    tensors = (*spec.action_keys, *spec.proprio_keys, *((spec.embedding_key,) if spec.embedding_key else ()))
    texts = ((spec.language_key,) if spec.language_key and not coded else ()) + spec.paraphrase_keys
    for kind, keys in (("tensor", tensors), ("image", tuple(spec.cameras.values())), ("text", texts)):
        usable = sorted(
            key for key, f in folder.steps.items() if f.kind == kind and not f.ragged and (kind == "image" or None not in f.shape)
        )
        missing = [key for key in keys if key not in usable]
        if missing:
            raise ValueError(
                f"{kind} features of dataset {folder.name!r} must be among {usable}, got {missing}. "
                f"Correct its spec, or use the version that it describes: {folder.path} has {len(folder.steps)} features in all."
            )
    if spec.success_key and spec.success_key not in folder.episode:
        raise ValueError(
            f"success_key of dataset {folder.name!r} must be a feature beside the steps, one of {sorted(folder.episode)}, "
            f"got {spec.success_key!r}. Correct its spec."
        )
    if spec.embedding_key:
        feature = folder.steps[spec.embedding_key]
        if (feature.size, feature.encoding) != (spec.embedding_size, "none") or not feature.dtype.startswith("float"):
            raise ValueError(
                f"embedding {spec.embedding_key!r} of dataset {folder.name!r} must be {spec.embedding_size} plain floats, got {feature}."
            )


def _columns(record: bytes, folder: Folder, entry: Entry) -> tuple[dict[str, NDArray], int]:
    """The columns of one episode, and whether it succeeded. Raises ValueError for what is not as features.json and the spec say."""
    spec, values = entry.spec, example.parse(record)

    def stored(key: str) -> example.Values:
        if f"steps/{key}" not in values:
            raise ValueError(f"feature {key!r} must be in the record as features.json says, got {sorted(values)}.")
        return values[f"steps/{key}"]

    raw = {key: _tensor(record, stored(key), folder.steps[key]) for key in (*spec.action_keys, *spec.proprio_keys)}
    steps = len(raw[spec.action_keys[0]])
    _check_lengths(raw, steps)
    action, proprio = entry.standardize(spec, raw)
    _check_values(action, "action", [dimension.name for dimension in spec.action])
    _check_values(proprio, "proprio", [dimension.name for dimension in spec.proprio])
    check_grippers(action, spec.action)
    columns: dict[str, NDArray] = {"action": action, "proprio": proprio} if spec.proprio else {"action": action}
    for camera, key in spec.cameras.items():
        columns[camera] = _parts(record, example.spans(record, stored(key)))
    if spec.embedding_key:
        offset, size = example.packed(record, stored(spec.embedding_key))
        width = 4 * spec.embedding_size
        columns["embedding"] = _parts(record, [(offset + at, width) for at in range(0, size, width)])
    if spec.language_key:
        columns["text"] = _texts(record, stored(spec.language_key), folder.steps[spec.language_key])
    if spec.paraphrase_keys:
        others = [_texts(record, stored(key), folder.steps[key]) for key in spec.paraphrase_keys]
        _check_lengths(dict(zip(spec.paraphrase_keys, others, strict=True)), steps)
        columns["paraphrases"] = np.stack(others, axis=1)
    _check_lengths(columns, steps)
    return columns, _success(record, values.get(spec.success_key))


def _success(record: bytes, values: example.Values | None) -> int:
    """1, 0 or -1 for an episode that its dataset calls a success, a failure, or nothing; of a text, whether it says "success".

    "unsuccessful" does not, and a text that is empty says nothing.
    """
    if values is None:
        return -1
    if values.kind == "bytes":
        said = [record[at : at + size].decode(errors="replace").lower() for at, size in example.spans(record, values)]
        return int(any(map(_SUCCESS.search, said))) if any(text.strip() for text in said) else -1
    numbers = example.numbers(record, values)
    return int(numbers[0] > 0.5) if len(numbers) else -1


def _tensor(record: bytes, values: example.Values, feature: Feature) -> NDArray:
    """All steps of a tensor feature, [T, *shape]."""
    if feature.encoding == "none":
        flat = example.numbers(record, values)
    else:
        blobs = [record[at : at + size] for at, size in example.spans(record, values)]
        try:
            flat = np.frombuffer(b"".join(map(zlib.decompress, blobs) if feature.encoding == "zlib" else blobs), feature.dtype)
        except zlib.error as error:
            raise ValueError(f"a tensor of encoding 'zlib' must be whole, got a fault: {error}.") from error
    if flat.size % feature.size:
        raise ValueError(f"every step must have a tensor of shape {feature.shape} as features.json says, got {flat.size} numbers in all.")
    return flat.reshape(-1, *feature.shape)


def _texts(record: bytes, values: example.Values, feature: Feature) -> NDArray:
    """The instruction of each step: text, or one character code after another up to the first 0."""
    if feature.kind == "text":
        return np.array([record[at : at + size].decode(errors="replace") for at, size in example.spans(record, values)], object)
    codes = _tensor(record, values, feature).astype(np.int64)
    return np.array(["".join(map(chr, row)).split("\0")[0] for row in codes], object)


def _parts(record: bytes, spans: list[tuple[int, int]]) -> NDArray:
    return np.array([(at, size, records.checksum(record[at : at + size])) for at, size in spans], PART)


def _check_lengths(columns: Mapping[str, NDArray], steps: int) -> None:
    for key, column in columns.items():
        if len(column) != steps:
            raise ValueError(
                f"{key!r} must have a value for each of {steps} steps, got {len(column)}. Is features.json of another version?"
            )


def _check_values(values: NDArray, what: str, names: list[str]) -> None:
    if values.shape[1:] != (len(names),):
        raise ValueError(f"{what} must have the dimensions {names}, got {values.shape[1]} numbers a step. Correct the dataset's spec.")
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        step, at = bad[0]
        raise ValueError(f"{what} must be finite, got {values[step, at]} at step {step} in {names[at]!r}. Remove the episode.")


def read_columns(record: bytes, folder: Folder, entry: Entry) -> dict[str, NDArray]:
    """The columns of a single episode, "text" as strings. Raises ValueError where its values cannot be used."""
    return _columns(record, folder, entry)[0]
