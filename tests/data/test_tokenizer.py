"""Tokenizers as the tokenizers library writes them, and those that are not ours to read."""

import json

import pytest

from ebt_jax.data.tokenizer import read_tokenizer
from ebt_jax.specs import ActionDimension, ActionSpec, ObservationSpec, Specs
from ebt_jax.text import tokenize

WORDPIECE = {
    "normalizer": {"type": "BertNormalizer", "lowercase": True},
    "model": {"type": "WordPiece", "vocab": {"[SEP]": 3, "[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "pick": 4}},
}
UNIGRAM = {
    "normalizer": None,
    "model": {"type": "Unigram", "vocab": [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["\u2581pick", -1.5e-7]]},
}


@pytest.mark.parametrize(("tree", "kind", "expected"), [(WORDPIECE, "wordpiece", [2, 4, 3]), (UNIGRAM, "unigram", [3, 1])])
def test_a_vocabulary_travels_with_the_specs(tree, kind, expected, tmp_path):
    """Read from the folder, from the file and from beside the weights; through JSON; and it keeps out of messages."""
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
    spec = read_tokenizer(str(tmp_path))
    assert spec == read_tokenizer(str(tmp_path / "tokenizer.json")) == read_tokenizer(str(tmp_path / "model.safetensors"))
    assert (spec.tokenizer, spec.size, spec.length) == (kind, len(tree["model"]["vocab"]), 32)
    specs = Specs(ObservationSpec((), (), spec, 1), ActionSpec((ActionDimension("x", "eef_delta", "m"),), "base", 1))
    again = Specs.from_json(specs.to_json()).observation.language
    assert again == spec
    ids, mask = tokenize("Pick" if kind == "wordpiece" else "pick", again)
    assert ids[mask].tolist() == expected
    assert "pick" not in repr(spec)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "must lie in tokenizer.json, got none at .*save_pretrained"),
        ("{", "got a fault at"),
        (json.dumps({"model": {"type": "BPE", "vocab": {}}}), r"WordPiece \(MiniLM\) or Unigram \(T5\), got 'BPE'"),
        (json.dumps({**WORDPIECE, "normalizer": {"type": "BertNormalizer", "lowercase": False}}), "must be uncased"),
        (
            json.dumps({**WORDPIECE, "normalizer": {**WORDPIECE["normalizer"], "strip_accents": False}}),
            "must normalise as MiniLM's does, got strip_accents false",
        ),
        (
            json.dumps({**WORDPIECE, "normalizer": {**WORDPIECE["normalizer"], "strip_accents": None, "handle_chinese_chars": False}}),
            "must normalise as MiniLM's does, got handle_chinese_chars false",
        ),
        (json.dumps({**WORDPIECE, "model": {"type": "WordPiece", "vocab": {"a": 0, "b": 2}}}), "numbered 0, 1, 2, ..., got gaps"),
    ],
)
def test_other_files_are_refused(text, message, tmp_path):
    if text is not None:
        (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_tokenizer(str(tmp_path))
