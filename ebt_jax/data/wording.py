"""What a sample is told: which wording of its instruction, whether the instruction or the goal image is hidden.

Every choice is a hash of the sample's own number, so it does not depend on the batch, the host or a restart.
"""

import functools
import json
import pathlib
import threading
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from ebt_jax.data.index import Index
from ebt_jax.data.order import mix
from ebt_jax.specs import GOAL, LanguageSpec
from ebt_jax.text import tokenize
from ebt_jax.types import Batch

_LANGUAGE, _WORDING, _HIDE_LANGUAGE, _HIDE_GOAL = 1, 2, 3, 4
_ONE_AT_A_TIME = threading.Lock()


class Wordings:
    """Instruction -> other ways to say it; equal only to itself, so that what is derived from it can be cached."""

    def __init__(self, others: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self.others = others or {}


AS_WRITTEN = Wordings()


def read_wordings(path: str) -> Wordings:
    """From a JSON file {"pick up the cup": ["grab the cup", ...]}; "" is none. Raises ValueError for anything else."""
    if not path:
        return AS_WRITTEN
    try:
        tree = json.loads(pathlib.Path(path).expanduser().read_text())
        for text, others in tree.items():
            if not (isinstance(others, list) and all(isinstance(other, str) for other in others)):
                raise TypeError(f"{text!r} has {others!r}, which is no list of texts")
        return Wordings({text: tuple(others) for text, others in tree.items()})
    except (OSError, json.JSONDecodeError, AttributeError, TypeError) as error:
        raise ValueError(f'paraphrases must be a JSON file like {{"pick it up": ["grab it"]}}, got {path}: {error}.') from error


def uniform(keys: UInt64[np.ndarray, " b"], stream: int) -> Float[np.ndarray, " b"]:
    """One number in [0, 1) a key; streams are independent."""
    return (np.asarray(mix(keys, stream)) >> np.uint64(11)) / 2.0**53


def tokens(
    index: Index, rows: Int[np.ndarray, " b"], spec: LanguageSpec, wordings: Wordings, keys: UInt64[np.ndarray, " b"] | None
) -> tuple[Int[np.ndarray, "b l"], Bool[np.ndarray, "b l"]]:
    """The instruction at each row: with `keys` any of its wordings, alike, without them the one the dataset lists first."""
    chosen = index.columns["text"][rows]
    with _ONE_AT_A_TIME:  # a cache alone would let every thread of a loader make the first batch's tables
        ids, masks, starts = _tables(index, spec, wordings)
    if keys is None:
        return ids[starts[chosen]], masks[starts[chosen]]
    if "paraphrases" in index.columns:
        candidates = np.concatenate([chosen[:, None], index.columns["paraphrases"][rows]], axis=1)
        usable = masks[starts[candidates]].any(axis=2)
        rank = (uniform(keys, _LANGUAGE) * usable.sum(axis=1)).astype(np.int64)
        place = np.argmax(np.cumsum(usable, axis=1) > rank[:, None], axis=1)
        chosen = np.take_along_axis(candidates, place[:, None], axis=1)[:, 0]
    first, count = starts[chosen], starts[chosen + 1] - starts[chosen]
    place = first + (uniform(keys, _WORDING) * count).astype(np.int64)
    return ids[place], masks[place]


def hide(batch: Batch, keys: UInt64[np.ndarray, " b"], language_dropout: float, goal_dropout: float) -> Batch:
    """Some samples without their instruction, some without their goal images, none that had either without both."""
    observation = batch.observation
    if not language_dropout and not goal_dropout:
        return batch
    language_mask = observation.language_mask & (uniform(keys, _HIDE_LANGUAGE) >= language_dropout)[:, None]
    goals = [camera for camera in observation.images if camera.startswith(GOAL)]
    told = language_mask.any(axis=1)
    masks = dict(observation.image_masks)
    if goals:
        shown = (uniform(keys, _HIDE_GOAL) >= goal_dropout) | ~told
        masks |= {camera: masks[camera] & shown[:, None] for camera in goals}
    return batch._replace(observation=observation._replace(language_mask=language_mask, image_masks=masks))


@functools.lru_cache(maxsize=64)
def _tables(
    index: Index, spec: LanguageSpec, wordings: Wordings
) -> tuple[Int[np.ndarray, "n l"], Bool[np.ndarray, "n l"], Int[np.ndarray, " m"]]:
    """Every wording of every instruction tokenised once, and where those of each instruction begin."""
    rows = [[text, *wordings.others.get(text, ())] for text in index.texts]
    ids, masks = zip(*(tokenize(text, spec) for row in rows for text in row), strict=True)
    return np.stack(ids), np.stack(masks), np.cumsum([0, *map(len, rows)])
