"""The ids of instructions: splits whose answer is known."""

import re
import time
import zlib

import numpy as np
import pytest

from ebt_jax.specs import LanguageSpec
from ebt_jax.text import tokenize

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##want", "##ed", "want", "pick", "!", "cafe", "##s"]
WORDPIECE = LanguageSpec("tokens", 8, len(PIECES), "wordpiece", "\n".join(PIECES))
SCORED = [("<pad>", 0), ("</s>", 0), ("<unk>", 0), ("\u2581", -2), ("\u2581ab", -5), ("a", -3), ("b", -3), ("\u2581a", -4), ("ab", -1)]
UNIGRAM = LanguageSpec("tokens", 8, len(SCORED), "unigram", "\n".join(f"{piece}\t{score}" for piece, score in SCORED))


def ids(text, spec):
    found, mask = tokenize(text, spec)
    assert not found[~mask].any()
    return found[mask].tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unwanted", [2, 4, 5, 6, 3]),
        ("Pick!  CAF\u00c9s", [2, 8, 9, 10, 11, 3]),
        ("unwant unpicked", [2, 4, 5, 1, 3]),  # one piece that is missing makes the word unknown
        ("pick " * 9, [2, *[8] * 6, 3]),  # the closing piece is kept
        ("", []),
        (" \t ", []),
    ],
)
def test_wordpiece(text, expected):
    assert ids(text, WORDPIECE) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ab", [3, 8, 1]),  # -2 - 1 beats -5
        ("a b", [7, 3, 6, 1]),
        ("abxyb", [3, 8, 2, 6, 1]),  # two unknown neighbours are one
        ("\uff41\uff42", [3, 8, 1]),  # full-width letters
        ("ab " * 9, [3, 8, 3, 8, 3, 8, 3, 1]),
        ("", []),
    ],
)
def test_unigram(text, expected):
    assert ids(text, UNIGRAM) == expected


def test_a_text_costs_the_same_whatever_the_vocabulary():
    """32,100 pieces, as T5 has: going through all of them took 2 ms a text, where a soup has 56,000 texts."""
    pieces = [*SCORED, *((f"piece{number}", -6) for number in range(32_100))]
    spec = LanguageSpec("tokens", 8, len(pieces), "unigram", "\n".join(f"{piece}\t{score}" for piece, score in pieces))
    assert ids("ab", spec) == [3, 8, 1]
    begun = time.thread_time()
    for number in range(300):
        assert ids(f"a b {number}", spec)[:3] == [7, 3, 6]
    assert time.thread_time() - begun < 0.2


def test_words_hash_alike_whatever_their_case():
    spec = LanguageSpec("tokens", 4, 100)
    np.testing.assert_array_equal(*(tokenize(text, spec)[0] for text in ("Reach the GOAL.", "reach, the goal")))
    with pytest.raises(ValueError, match="must be of kind 'tokens' to tokenize, got 'none'"):
        tokenize("reach", LanguageSpec())


@pytest.mark.parametrize("text", ["Pick up the_cup, 2 cm left!", "don't", "push T-block to x=0.5", "__"])
def test_words_of_ascii_are_letters_and_digits(text):
    words = re.findall(r"[a-z0-9]+", text.lower())
    assert ids(text, LanguageSpec("tokens", 16, 8192)) == [zlib.crc32(word.encode()) % 8192 for word in words]


def test_words_of_any_script_have_ids():
    spec = LanguageSpec("tokens", 16, 8192)
    cup = ids("возьми чашку", spec)
    assert len(set(cup)) == 2
    assert cup != ids("возьми мяч", spec)
    door = [zlib.crc32(word.encode()) % 8192 for word in ("öffne", "die", "tür")]
    assert ids("Öffne die Tür", spec) == ids("Öffne die Tür", spec) == door
