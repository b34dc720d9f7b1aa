"""Instructions as token ids: the same words give the same ids on every machine, and no file is needed beside the specs.

words        CRC-32 of each lower-case word, letters and digits of any script, modulo the number of ids (the hashing trick)
wordpiece    BERT's uncased tokenizer: [CLS] piece ##piece ... [SEP]
unigram      T5's: the likeliest split of each word, then </s>
"""

import functools
import math
import re
import unicodedata
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ebt_jax.specs import LanguageSpec

_WORD = re.compile(r"[^\W_]+")
_LONGEST_WORD = 100
_UNKNOWN_PENALTY = 10.0
_SPACE = "\u2581"


def tokenize(text: str, spec: LanguageSpec) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Ids [l] int32 and mask [l] of an instruction, by the spec's tokenizer.

    What lies past `spec.length` is dropped, of pieces before the closing one. An empty instruction is an all-False mask. Raises
    ValueError for a spec of another kind.
    """
    if spec.kind != "tokens":
        raise ValueError(f"language spec must be of kind 'tokens' to tokenize, got {spec.kind!r}.")
    ids = _TOKENIZERS[spec.tokenizer](text, spec) if text.strip() else []
    tokens = np.zeros(spec.length, np.int32)
    tokens[: len(ids)] = ids
    return tokens, np.arange(spec.length) < len(ids)


def _words(text: str, spec: LanguageSpec) -> list[int]:
    words = _WORD.findall(unicodedata.normalize("NFC", text.lower()))
    return [zlib.crc32(word.encode()) % spec.size for word in words][: spec.length]


def _wordpiece(text: str, spec: LanguageSpec) -> list[int]:
    """Greedy longest pieces of each word; a word that they do not cover is [UNK] (Devlin et al. 2019)."""
    ids = _pieces(spec.vocabulary)
    found: list[int] = []
    for word in _basic_words(text):
        pieces, start = [], 0
        while start < len(word) <= _LONGEST_WORD:
            ends = range(len(word), start, -1)
            end = next((end for end in ends if ("##" if start else "") + word[start:end] in ids), None)
            if end is None:
                break
            pieces.append(ids[("##" if start else "") + word[start:end]])
            start = end
        found += pieces if start == len(word) else [ids["[UNK]"]]
    return [ids["[CLS]"], *found[: spec.length - 2], ids["[SEP]"]]


def _basic_words(text: str) -> list[str]:
    """Lower-case words without accents or control characters; punctuation and Chinese characters stand alone."""
    text = "".join(" " if char.isspace() else char for char in text if char.isspace() or unicodedata.category(char)[0] != "C")
    spaced = "".join(f" {char} " if _is_chinese(char) else char for char in text if char != "\ufffd")
    plain = "".join(char for char in unicodedata.normalize("NFD", spaced) if unicodedata.category(char) != "Mn").lower()
    return "".join(f" {char} " if _is_punctuation(char) else char for char in plain).split()


def _is_punctuation(char: str) -> bool:
    return unicodedata.category(char).startswith("P") or char in "$+<=>^`|~"


def _is_chinese(char: str) -> bool:
    blocks = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))
    return any(low <= ord(char) <= high for low, high in blocks)


def _unigram(text: str, spec: LanguageSpec) -> list[int]:
    """The split of each word that maximises the sum of log-probabilities (Kudo 2018); Unicode is normalised by NFKC."""
    ids, scores, longest, worst = _scored_pieces(spec.vocabulary)
    unknown, missing = ids["<unk>"], worst - _UNKNOWN_PENALTY
    found: list[int] = []
    for word in unicodedata.normalize("NFKC", text).split():
        word = _SPACE + word
        best: list[tuple[float, int, int]] = [(0.0, 0, 0)]  # up to each character: score, where its last piece starts, its id
        for end in range(1, len(word) + 1):
            choices = [(-math.inf, 0, 0)]
            for start in range(max(0, end - longest), end):
                piece = ids.get(word[start:end])
                if piece is not None:
                    choices.append((best[start][0] + scores[piece], start, piece))
                elif start == end - 1:
                    choices.append((best[start][0] + missing, start, unknown))
            best.append(max(choices, key=lambda choice: choice[0]))
        pieces: list[int] = []
        end = len(word)
        while end:
            _, end, piece = best[end]
            if not (piece == unknown and pieces and pieces[-1] == unknown):  # neighbours that nobody knows are one
                pieces.append(piece)
        found += pieces[::-1]
    return [*found[: spec.length - 1], ids["</s>"]]


@functools.lru_cache(maxsize=4)
def _pieces(vocabulary: str) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(vocabulary.split("\n"))}


@functools.lru_cache(maxsize=4)
def _scored_pieces(vocabulary: str) -> tuple[dict[str, int], list[float], int, float]:
    """Piece -> id, the score of each id, how long the longest piece is, and the worst score."""
    rows = [line.rsplit("\t", 1) for line in vocabulary.split("\n")]
    ids, scores = {piece: number for number, (piece, _) in enumerate(rows)}, [float(score) for _, score in rows]
    return ids, scores, max(map(len, ids)), min(scores)


_TOKENIZERS: dict[str, Callable[[str, LanguageSpec], list[int]]] = {"words": _words, "wordpiece": _wordpiece, "unigram": _unigram}
