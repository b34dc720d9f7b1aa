"""Windows of a split as a batch in robot units: slices of columns, and only the frames that the windows show.

Pure numpy; runs in the loader's threads, no jax device is touched.
"""

import functools
import io
from typing import NamedTuple

import jax
import numpy as np
import simplejpeg
from jaxtyping import Bool, Float32, Int, UInt8, UInt64
from numpy.typing import NDArray
from PIL import Image

from ebt_jax.data import records
from ebt_jax.data.faults import Faults
from ebt_jax.data.index import Index
from ebt_jax.data.order import mix
from ebt_jax.data.splits import Split
from ebt_jax.data.windows import windows
from ebt_jax.data.wording import AS_WRITTEN, Wordings, tokens, uniform
from ebt_jax.frames import delivered, shown_steps
from ebt_jax.images import resize_into
from ebt_jax.specs import GOAL, LanguageSpec, Specs
from ebt_jax.types import Batch, Observation

ATTEMPTS = 20
"""Windows tried in place of one that cannot be read."""

_GOAL = 0x676F616C


def gather(
    split: Split,
    numbers: Int[np.ndarray, " b"],
    specs: Specs,
    keys: UInt64[np.ndarray, " b"] | None = None,
    wordings: Wordings = AS_WRITTEN,
    faults: Faults | None = None,
) -> Batch:
    """The windows of these numbers, robot units. A camera that the dataset lacks is black, with a mask that says so.

    Args:
      keys: randomness of each window: which later step is its goal, which wording its instruction. None takes a goal that
        depends on the window alone, and the first wording.
      faults: where it is given, a window that cannot be read is counted there and replaced by another of the split, a function
        of its number.

    Raises CorruptRecordError where a record is no longer what it was or an image is none, OSError where a file cannot be read, both
    naming it; with `faults` only after `ATTEMPTS` windows on end.
    """
    batch, errors = _gather(split, numbers, specs, keys, wordings)
    wrong = np.array([row for row, error in enumerate(errors) if error is not None], np.int64)
    for attempt in range(1, ATTEMPTS + 1):
        if not len(wrong):
            return batch
        if faults is None or attempt == ATTEMPTS:
            break
        for row in wrong:
            faults.report("replaced windows", str(errors[row]))
        others = (np.asarray(mix(numbers[wrong], attempt)) % np.uint64(len(split))).astype(np.int64)
        found, again = _gather(split, others, specs, None if keys is None else keys[wrong], wordings)
        for row, error in zip(wrong, again, strict=True):
            errors[row] = error
        for whole, part in zip(jax.tree.leaves(batch), jax.tree.leaves(found), strict=True):
            whole[wrong] = part
        wrong = np.array([row for row in wrong if errors[row] is not None], np.int64)
    raise errors[wrong[0]]  # pyright: ignore[reportGeneralTypeIssues]


def _gather(
    split: Split, numbers: Int[np.ndarray, " b"], specs: Specs, keys: UInt64[np.ndarray, " b"] | None, wordings: Wordings
) -> tuple[Batch, list[Exception | None]]:
    """The windows, and what was wrong with each."""
    index = split.index
    episodes, steps = split.locate(numbers)
    view = windows(steps, episodes["length"], specs.observation.horizon, specs.action.horizon)
    draws = uniform(np.asarray(mix(numbers, 0)) if keys is None else keys, _GOAL)
    ahead = np.maximum(episodes["length"] - 1 - steps, 0)
    goals = steps + np.minimum(1 + (draws * ahead).astype(np.int64), ahead)
    seen, done = episodes["start"][:, None] + view.history, episodes["start"][:, None] + view.chunk
    images, image_masks, embeddings, errors = _read(index, episodes, seen, episodes["start"] + goals, specs)
    proprio = index.columns["proprio"][seen] if "proprio" in index.columns else np.zeros((*seen.shape, 0), np.float32)
    language, language_mask = _language(index, seen[:, -1], embeddings, specs.observation.language, wordings, keys)
    actions = index.columns["action"][done]
    mask = np.broadcast_to(view.action_mask[..., None], actions.shape).copy()
    observation = Observation(images, image_masks, proprio, language, language_mask, view.timestep_mask)
    return Batch(observation, actions, mask), errors


def decode(data: bytes) -> UInt8[np.ndarray, "y x 3"]:
    """A JPEG or PNG file as RGB, told apart by its first bytes. Raises ValueError for anything else, and for a damaged one."""
    if data.startswith(b"\xff\xd8"):
        return simplejpeg.decode_jpeg(data, colorspace="RGB")
    if data.startswith(b"\x89PNG"):
        try:
            with Image.open(io.BytesIO(data)) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"a PNG must be readable, got {len(data)} bytes: {error}.") from error
    raise ValueError(f"an image must be JPEG or PNG, got bytes that start with {data[:8]!r}.")


class _Visit(NamedTuple):
    """What all windows of one episode need of its record."""

    episode: np.void
    rows: list[int]
    steps: dict[str, list[int]]  # column -> distinct rows of the index, in order


def _read(
    index: Index, episodes: NDArray, seen: Int[np.ndarray, "b t"], goals: Int[np.ndarray, " b"], specs: Specs
) -> tuple[
    dict[str, UInt8[np.ndarray, "b t y x 3"]], dict[str, Bool[np.ndarray, "b t"]], Float32[np.ndarray, "b e"], list[Exception | None]
]:
    """Frames and embeddings, with one visit to each record: windows of one episode share it, and every frame is decoded once."""
    cameras, language = specs.observation.cameras, specs.observation.language
    images = {camera.name: np.zeros((*seen.shape, camera.height, camera.width, 3), np.uint8) for camera in cameras}
    masks = {camera.name: np.zeros(seen.shape, bool) for camera in cameras}
    embedded = language.kind == "embedding" and "embedding" in index.columns
    embeddings = np.zeros((len(seen), language.size if embedded else 0), np.float32)
    errors: list[Exception | None] = [None] * len(seen)
    wanted = {camera.name: camera.name.removeprefix(GOAL) for camera in cameras if camera.name.removeprefix(GOAL) in index.columns}
    if not wanted and not embedded:
        return images, masks, embeddings, errors

    visits: list[_Visit] = []
    for rows in _same(episodes["start"]):
        past = sorted(set(seen[rows].ravel().tolist()))
        steps = {name: sorted(set(goals[rows].tolist())) if name.startswith(GOAL) else past for name in wanted}
        if embedded:
            steps["embedding"] = sorted(set(seen[rows, -1].tolist()))
        visits.append(_Visit(episodes[rows[0]], rows, steps))
    requests = [
        records.Request(
            index.files[visit.episode["shard"]],
            int(visit.episode["position"]),
            [part for name, steps in visit.steps.items() for part in index.columns[wanted.get(name, name)][steps].tolist()],
        )
        for visit in visits
    ]
    for visit, request, found in zip(visits, requests, records.read_many(index.file_format, requests), strict=True):
        try:
            if isinstance(found, Exception):
                raise found
            files = iter(found)
            for name, steps in visit.steps.items():
                parts = [next(files) for _ in steps]
                rows = np.array(visit.rows)
                if name == "embedding":
                    vectors = np.stack([np.frombuffer(data, "<f4") for data in parts])
                    embeddings[rows] = vectors[np.searchsorted(steps, seen[rows, -1])]
                    continue
                into, shown = (part[name][:, shown_steps(name)] for part in (images, masks))
                place = np.searchsorted(steps, goals[rows, None] if name.startswith(GOAL) else seen[rows])
                for number, data in enumerate(parts):
                    found_rows, found_steps = np.nonzero(place == number)
                    (first, *others) = zip(rows[found_rows].tolist(), found_steps.tolist(), strict=True)
                    resize_into(_decode_named(data, request), into[first])
                    shown[first] = delivered(into[first])
                    for other in others:
                        into[other], shown[other] = into[first], shown[first]
        except (records.CorruptRecordError, OSError) as error:
            for row in visit.rows:
                errors[row] = error
    return images, masks, embeddings, errors


def _same(values: NDArray) -> list[list[int]]:
    """Places of equal values, those of the first value first."""
    groups: dict[int, list[int]] = {}
    for row, value in enumerate(values.tolist()):
        groups.setdefault(value, []).append(row)
    return list(groups.values())


def _decode_named(data: bytes, request: records.Request) -> UInt8[np.ndarray, "y x 3"]:
    try:
        return decode(data)
    except ValueError as error:
        raise records.CorruptRecordError(
            f"{request.path}: record at {request.position} holds an image that cannot be read: {error}"
        ) from error


def _language(
    index: Index,
    rows: Int[np.ndarray, " b"],
    embeddings: Float32[np.ndarray, "b e"],
    spec: LanguageSpec,
    wordings: Wordings,
    keys: UInt64[np.ndarray, " b"] | None,
) -> tuple[NDArray, Bool[np.ndarray, "b l"]]:
    """The instruction at the newest step, and a mask that is False where there is none."""
    column = {"none": "", "tokens": "text", "embedding": "embedding"}[spec.kind]
    if column not in index.columns:  # none is asked for, or this dataset of a mixture has none
        shape = (len(rows), spec.length, spec.size) if spec.kind == "embedding" else (len(rows), spec.length)
        return np.zeros(shape, np.float32 if spec.kind == "embedding" else np.int32), np.zeros((len(rows), spec.length), bool)
    if spec.kind == "tokens":
        return tokens(index, rows, spec, wordings, keys)
    mask = _written(index)[index.columns["text"][rows]] if "text" in index.columns else np.ones(len(rows), bool)
    return embeddings[:, None, :], mask[:, None]


@functools.lru_cache(maxsize=64)
def _written(index: Index) -> Bool[np.ndarray, " n"]:
    """True for instructions that say something."""
    return np.array([bool(text.strip()) for text in index.texts])
