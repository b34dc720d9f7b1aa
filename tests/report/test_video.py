"""What is written plays back: frame count, size, rate and colours."""

import imageio_ffmpeg
import numpy as np
import pytest

from ebt_jax.report.video import write_video


def read(path):
    """Frames [n y x c] and rate of a video."""
    frames = imageio_ffmpeg.read_frames(str(path))
    meta = next(frames)
    width, height = meta["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in frames]), meta["fps"]


@pytest.mark.parametrize(("height", "width"), [(64, 48), (65, 47)])
def test_round_trip(tmp_path, height, width):
    ramp = np.linspace(0, 255, 12).astype(np.uint8)
    frames = np.broadcast_to(ramp[:, None, None, None], (12, height, width, 3)).copy()
    write_video(tmp_path / "deep" / "film.mp4", frames, fps=10)
    played, fps = read(tmp_path / "deep" / "film.mp4")
    assert played.shape == (12, height + height % 2, width + width % 2, 3)
    assert fps == 10
    np.testing.assert_allclose(played.mean((1, 2, 3)), ramp, atol=3)


def test_red_stays_red(tmp_path):
    frames = np.zeros((4, 32, 32, 3), np.uint8)
    frames[..., 0] = 255
    write_video(tmp_path / "red.mp4", frames, fps=4)
    red, green, blue = read(tmp_path / "red.mp4")[0].mean((0, 1, 2))
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
