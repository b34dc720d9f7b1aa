"""What is written plays back: frame count, size, rate and colours."""

import imageio_ffmpeg
import numpy as np
import pytest

from ebt_jax.report.video import read_video, write_video


@pytest.mark.parametrize(("height", "width"), [(64, 48), (65, 47)])
def test_round_trip(tmp_path, height, width):
    ramp = np.linspace(0, 255, 12).astype(np.uint8)
    frames = np.broadcast_to(ramp[:, None, None, None], (12, height, width, 3)).copy()
    write_video(tmp_path / "deep" / "film.mp4", frames, fps=10)
    played, fps = read_video(tmp_path / "deep" / "film.mp4")
    assert played.shape == (12, height + height % 2, width + width % 2, 3)
    assert fps == 10
    np.testing.assert_allclose(played.mean((1, 2, 3)), ramp, atol=3)


def test_red_stays_red(tmp_path):
    frames = np.zeros((4, 32, 32, 3), np.uint8)
    frames[..., 0] = 255
    write_video(tmp_path / "red.mp4", frames, fps=4)
    red, green, blue = read_video(tmp_path / "red.mp4")[0].mean((0, 1, 2))
    assert red > 240
    assert max(green, blue) < 20


def test_bad_input_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"frames must have shape \[n y x 3\]"):
        write_video(tmp_path / "a.mp4", np.zeros((0, 8, 8, 3), np.uint8), fps=4)
    with pytest.raises(ValueError, match="fps must be positive, got 0"):
        write_video(tmp_path / "a.mp4", np.zeros((1, 8, 8, 3), np.uint8), fps=0)


def test_failure_carries_the_words_of_ffmpeg(tmp_path, monkeypatch):
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\necho no room left >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(broken))
    with pytest.raises(RuntimeError, match="no room left"):
        write_video(tmp_path / "films" / "a.mp4", np.zeros((1, 8, 8, 3), np.uint8), fps=4)
    assert list((tmp_path / "films").iterdir()) == []


def test_a_film_is_read_as_it_was_written(tmp_path):
    frames = np.repeat(np.linspace(0, 255, 6).astype(np.uint8)[:, None, None, None], 3, axis=3) * np.ones((1, 16, 32, 1), np.uint8)
    write_video(tmp_path / "film.mp4", frames, 20)
    read, fps = read_video(tmp_path / "film.mp4")
    assert fps == 20
    assert read.shape == frames.shape
    np.testing.assert_allclose(read.astype(int), frames, atol=6)
    with pytest.raises(FileNotFoundError, match="film must exist"):
        read_video(tmp_path / "none.mp4")
