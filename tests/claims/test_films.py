"""Films of episodes beside each other: all as long, all from one state, and what is said stands where it belongs."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.claims.films import PAUSE_SECONDS, STRIP, Film, side_by_side, write_gif
from ebt_jax.evaluation.measured import EpisodeResult


def film(shade, count, score):
    result = EpisodeResult("pusht", 0, 100_000, False, 0.0, 4 * count, {"score": score}, {})
    return Film(f"shade {shade}", np.full((count, 32, 48, 3), shade, np.uint8), 20.0, 4, result)


def test_the_shorter_episode_waits_and_words_come_in_time():
    short, long = film(100, 5, 1.0), film(200, 9, 0.25)
    joined = side_by_side([short, long], "pushed", at=12)
    assert joined.shape == (9 + 20 * PAUSE_SECONDS, 32 + 2 * STRIP, 96, 3)
    assert (joined[:, STRIP:-STRIP, :48] == 100).all()
    assert (joined[:, STRIP:-STRIP, 48:] == 200).all()
    below = joined[:, -STRIP:, 48:]
    said = [int((strip != 255).any()) for strip in below]
    assert said[:3] == [0, 0, 0]  # the push comes at step 12, frame 3
    assert all(said[3:])
    assert (below[3] == below[7]).all()
    assert (below[8] != below[7]).any()  # the episode's end says its score
    assert (joined[4, -STRIP:, :48] != joined[3, -STRIP:, :48]).any()


def test_nothing_is_said_of_what_did_not_happen():
    joined = side_by_side([film(100, 5, 1.0)], "", at=0)
    assert (joined[:4, -STRIP:] == 255).all()


@pytest.mark.parametrize("fps", [10.0, 20.0])
def test_a_gif_plays_four_times_as_fast(fps, tmp_path):
    frames = np.arange(80, dtype=np.uint8)[:, None, None, None] * np.full((80, 40, 80, 3), 3, np.uint8)
    write_gif(tmp_path / "film.gif", frames, fps, width=40)
    with Image.open(tmp_path / "film.gif") as gif:
        assert gif.size == (40, 20)
        assert gif.n_frames * gif.info["duration"] == pytest.approx(1000 * 80 / fps / 4, rel=0.01)
