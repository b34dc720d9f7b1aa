"""What a sample is told depends on its own number alone: goals, wordings, what is hidden."""

import collections
import concurrent.futures
import dataclasses
import json
import threading
import time

import chex
import jax
import numpy as np
import pytest
import toy_rlds

from ebt_jax.data import wording
from ebt_jax.data.loader import make_loader
from ebt_jax.data.mixture import TOKENS, open_mixture
from ebt_jax.data.wording import read_wordings
from ebt_jax.specs import Specs
from ebt_jax.text import tokenize

LONG = 12
WORDS = {"language_instruction": "pick it", "other": "grab it", "third": ""}


@pytest.fixture
def told(make_folder):
    """Two episodes of twelve steps with two wordings, the third empty."""
    shard = [{**toy_rlds.make_episode(number, LONG), **{key: [text.encode()] * LONG for key, text in WORDS.items()}} for number in range(2)]
    spec = dataclasses.replace(toy_rlds.SPEC, paraphrase_keys=("other", "third"))
    make_folder("toy", {**toy_rlds.STEPS, "other": {"text": {}}, "third": {"text": {}}}, {"train": [shard]}, spec)


def _take(mixture, count, **kwargs):
    batches = make_loader(mixture, "train", **{"batch_size": 48, "seed": 0, "num_threads": 0, "prefetch": 1, **kwargs})
    return [next(batches) for _ in range(count)]


def test_a_goal_is_any_later_frame_of_the_episode_alike(told, settings):
    mixture = open_mixture(settings(cameras=("primary", "goal_primary")))
    pairs = collections.Counter()
    for batch in _take(mixture, 60):
        now = np.rint((batch.observation.images["primary"][:, -1, 0, 0, 0] - 5.0) / 10).astype(int)
        goal = np.rint((batch.observation.images["goal_primary"][:, -1, 0, 0, 0] - 5.0) / 10).astype(int)
        pairs.update(zip(now.tolist(), goal.tolist(), strict=True))
        masks = batch.observation.image_masks["goal_primary"]
        assert masks[:, -1].all()
        assert not masks[:, :-1].any()
        assert not batch.observation.images["goal_primary"][:, :-1].any()
    assert set(pairs) == {(now, goal) for now in range(LONG - 1) for goal in range(now + 1, LONG)} | {(LONG - 1, LONG - 1)}
    first = np.array([pairs[0, goal] for goal in range(1, LONG)])
    assert abs(first - first.mean()).max() < 5 * np.sqrt(first.mean())


def test_a_goal_camera_is_in_the_specs_and_back(told, settings):
    specs = open_mixture(settings(cameras=("primary", "goal_primary"))).specs
    assert [camera.name for camera in specs.observation.cameras] == ["primary", "goal_primary"]
    assert Specs.from_json(specs.to_json()) == specs


def test_training_takes_any_wording_and_validation_the_first(told, settings, tmp_path):
    (tmp_path / "others.json").write_text(json.dumps({"grab it": ["seize it", "hold it"]}))
    mixture = open_mixture(settings(language="tokens", paraphrases=str(tmp_path / "others.json")))
    seen = collections.Counter(tuple(row) for batch in _take(mixture, 40) for row in batch.observation.language.tolist())
    share = {text: seen[tuple(tokenize(text, TOKENS)[0].tolist())] / (40 * 48) for text in ("pick it", "grab it", "seize it", "hold it")}
    np.testing.assert_allclose(list(share.values()), [1 / 2, 1 / 6, 1 / 6, 1 / 6], atol=0.06)
    assert sum(share.values()) == pytest.approx(1)
    example = mixture.example_batch(24)
    assert (example.observation.language == tokenize("pick it", TOKENS)[0]).all()


def test_threads_that_want_the_same_instructions_first_have_them_tokenised_once(told, settings, monkeypatch):
    mixture, seen = open_mixture(settings(language="tokens")), collections.Counter()
    together = threading.Barrier(8)

    def counted(text, spec):
        seen[text] += 1
        time.sleep(0.01)  # long enough for every thread to come
        return tokenize(text, spec)

    def ask(number):
        together.wait()
        return mixture.example_batch(2).observation.language

    monkeypatch.setattr(wording, "tokenize", counted)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    np.testing.assert_array_equal(found, [[tokenize("pick it", TOKENS)[0]] * 2] * 8)
    assert set(seen.values()) == {1}
    assert set(seen) == set(mixture.main.train.index.texts)


def test_hidden_instructions_leave_a_goal_and_hidden_goals_an_instruction(told, settings):
    mixture = open_mixture(settings(cameras=("primary", "goal_primary"), language_dropout=0.5, goal_dropout=0.8))
    batches = _take(mixture, 40)
    instructed = np.concatenate([batch.observation.language_mask.any(axis=1) for batch in batches])
    shown = np.concatenate([batch.observation.image_masks["goal_primary"][:, -1] for batch in batches])
    assert (instructed | shown).all()
    assert instructed.mean() == pytest.approx(0.5, abs=0.06)
    assert shown[~instructed].all()
    assert shown[instructed].mean() == pytest.approx(0.2, abs=0.06)
    plain = open_mixture(settings(cameras=("primary",), language_dropout=1.0))
    assert not _take(plain, 1)[0].observation.language_mask.any()


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_every_choice_is_the_same_on_any_number_of_hosts_and_after_a_restart(told, settings, hosts):
    mixture = open_mixture(settings(cameras=("primary", "goal_primary"), language_dropout=0.3, goal_dropout=0.5, windows_per_visit=4))
    whole = _take(mixture, 4)
    parts = [_take(mixture, 2, start_step=2, process_index=i, process_count=hosts) for i in range(hosts)]
    joined = [jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches) for batches in zip(*parts, strict=True)]
    chex.assert_trees_all_equal(joined, whole[2:])


def test_bad_files_and_misplaced_paraphrases_are_named(told, settings, tmp_path):
    (tmp_path / "bad.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"paraphrases must be a JSON file like .*bad\.json"):
        open_mixture(settings(paraphrases=str(tmp_path / "bad.json")))
    (tmp_path / "good.json").write_text("{}")
    with pytest.raises(ValueError, match="must stand beside language=\"tokens\", got 'none'"):
        open_mixture(settings(paraphrases=str(tmp_path / "good.json"), language="none"))


@pytest.mark.parametrize("others", ["grab it", [["grab it"]], {"grab it": 1}])
def test_paraphrases_that_are_no_list_of_texts_are_refused(tmp_path, others):
    (tmp_path / "others.json").write_text(json.dumps({"hold it": ["keep it"], "pick it": others}))
    with pytest.raises(ValueError, match=r"paraphrases must be a JSON file like .*others\.json: 'pick it' has .* no list of texts"):
        read_wordings(str(tmp_path / "others.json"))
