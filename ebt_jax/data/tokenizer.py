"""A published tokenizer's file -> the language spec whose ids `text.tokenize` then draws alike on every machine."""

import json
import pathlib
from typing import Any

from ebt_jax.specs import LanguageSpec

LENGTH = 32
"""Tokens of an instruction; Open X-Embodiment's have about ten words."""

_REMEDY = "`transformers`' AutoTokenizer.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER) writes tokenizer.json."


def read_tokenizer(path: str, length: int = LENGTH) -> LanguageSpec:
    """The spec of the tokenizer.json at `path`, which is that file, its folder, or weights that lie beside it.

    Raises ValueError where there is none, or one that is neither BERT's uncased WordPiece nor T5's Unigram.
    """
    place = pathlib.Path(path).expanduser()
    folder = place if place.is_dir() else place.parent
    file = place if place.suffix == ".json" and place.is_file() else folder / "tokenizer.json"
    if not file.is_file():
        raise ValueError(f"the tokenizer of a published text encoder must lie in tokenizer.json, got none at {file}. {_REMEDY}")
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        kind, vocabulary = tree["model"]["type"], tree["model"]["vocab"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"tokenizer.json must be as the tokenizers library writes it, got a fault at {error} in {file}.") from error
    if kind == "WordPiece":
        return _wordpiece(tree, vocabulary, file, length)
    if kind == "Unigram":
        return _spec("unigram", [f"{piece}\t{score!r}" for piece, score in vocabulary], file, length)
    raise ValueError(f"a tokenizer must be WordPiece (MiniLM) or Unigram (T5), got {kind!r} in {file}. Use the encoder's own.")


def _wordpiece(tree: dict[str, Any], vocabulary: dict[str, int], file: pathlib.Path, length: int) -> LanguageSpec:
    normalizer = tree.get("normalizer") or {}
    if normalizer.get("type") != "BertNormalizer" or not normalizer.get("lowercase"):
        raise ValueError(f"a WordPiece tokenizer must be uncased, as MiniLM's is, got the normalizer {normalizer} in {file}.")
    off = [key for key in ("strip_accents", "handle_chinese_chars") if normalizer.get(key) is False]
    if off:
        raise ValueError(f"a WordPiece tokenizer must normalise as MiniLM's does, got {' and '.join(off)} false in {file}.")
    pieces = sorted(vocabulary, key=lambda piece: vocabulary[piece])
    if [vocabulary[piece] for piece in pieces] != list(range(len(pieces))):
        raise ValueError(f"pieces of a vocabulary must be numbered 0, 1, 2, ..., got gaps in {file}.")
    return _spec("wordpiece", pieces, file, length)


def _spec(tokenizer: Any, pieces: list[str], file: pathlib.Path, length: int) -> LanguageSpec:
    broken = [piece for piece in pieces if "\n" in piece]
    if broken:
        raise ValueError(f"pieces of a vocabulary must be one line each, got {broken[:3]} in {file}.")
    return LanguageSpec("tokens", length, len(pieces), tokenizer, "\n".join(pieces))
