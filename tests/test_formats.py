"""Checkpoints of every older format open today: what each said of itself is kept here as it was."""

import hashlib
import json
import pathlib
from typing import get_args

import jax
import numpy as np
import pytest

from ebt_jax.checkpoint import unpack
from ebt_jax.formats import FORMAT, MIGRATIONS, format_file, format_of, migrate
from ebt_jax.images import resize
from ebt_jax.normalize import Mode, Statistics, make_normalizer
from ebt_jax.policy import empty_batch
from ebt_jax.specs import Specs
from ebt_jax.text import tokenize
from ebt_jax.training.settings import Settings

STORED = pathlib.Path(__file__).parent / "formats"
MEANING = "meaning.json"
"""What the newest of them made of numbers, words and pixels; no file of a checkpoint's."""


def stored(number):
    return {path.name: path.read_bytes() for path in (STORED / str(number)).iterdir() if path.name != MEANING}


def test_every_older_format_is_stored_and_has_a_way_on():
    assert sorted(MIGRATIONS) == list(range(1, FORMAT))
    assert sorted(int(path.name) for path in STORED.iterdir()) == sorted(MIGRATIONS)


@pytest.mark.parametrize("number", MIGRATIONS)
def test_an_old_checkpoint_describes_a_policy_today(number):
    files = stored(number)
    assert format_of(files) == number
    today = migrate(files)
    assert format_of(today) == FORMAT
    assert migrate(today) == today
    assert stored(number) == files  # pure
    settings = Settings.from_dict(json.loads(today["config.json"]))
    specs = Specs.from_json(today["specs.json"].decode())
    Statistics.from_json(today["statistics.json"].decode())
    batch = empty_batch(specs)
    assert unpack(today["example_batch.npz"])["actions"].shape == batch.actions.shape
    method = settings.make_method(specs)
    params = jax.eval_shape(method.init, jax.random.key(0), batch)
    assert jax.tree.leaves(params)


def test_numbers_words_and_pixels_mean_to_an_old_checkpoint_what_they_meant():
    """To the bit: its parameters were learnt from these, and would be wrong about anything else."""
    newest = max(MIGRATIONS)
    files, meaning = migrate(stored(newest)), json.loads((STORED / str(newest) / MEANING).read_text())
    specs, statistics = Specs.from_json(files["specs.json"].decode()), Statistics.from_json(files["statistics.json"].decode())
    for part, dimensions in (("action", specs.action.dimensions), ("proprio", ())):
        assert set(meaning["normalizers"][part]) == set(get_args(Mode))
        for mode, told in meaning["normalizers"][part].items():
            found = make_normalizer(getattr(statistics, part), mode, dimensions)
            np.testing.assert_array_equal(found.shift, np.array(told["shift"], np.float32), err_msg=f"{part}, {mode}")
            np.testing.assert_array_equal(found.scale, np.array(told["scale"], np.float32), err_msg=f"{part}, {mode}")
    ids, mask = tokenize(meaning["tokens"]["text"], specs.observation.language)
    assert ids[mask].tolist() == meaning["tokens"]["ids"]
    y, x, colour = np.ogrid[:48, :64, :3]
    frame = ((17 * y + 29 * x**2 + 101 * colour) % 256).astype(np.uint8)
    assert hashlib.sha256(resize(frame, *meaning["resized"]["size"]).tobytes()).hexdigest() == meaning["resized"]["sha256"]


def test_what_the_first_format_left_out():
    config = json.loads(migrate(stored(1))["config.json"])
    assert config.pop("keep_every") == 0
    assert config == json.loads(stored(1)["config.json"])


def test_a_format_of_tomorrow_is_refused():
    with pytest.raises(ValueError, match=f"must be at most {FORMAT}, got {FORMAT + 1}. A newer ebt_jax wrote it"):
        migrate({"format.json": format_file(FORMAT + 1)})
