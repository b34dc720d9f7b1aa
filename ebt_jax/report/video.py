"""Frames in, an H.264 file that every browser plays out, through the ffmpeg binary that imageio-ffmpeg bundles."""

import os
import pathlib
import subprocess

import imageio_ffmpeg
import numpy as np
from jaxtyping import UInt8


def write_video(path: str | os.PathLike[str], frames: UInt8[np.ndarray, "n y x c"], fps: int | float) -> None:
    """Writes `frames` (RGB, [0, 255]) as MP4 at `path`, making its folder.

    H.264 wants even sizes: the last row or column is repeated where one is odd. The file appears whole or not at all.
    Raises ValueError for frames or a rate that make no video, RuntimeError with ffmpeg's own words where encoding fails.
    """
    if frames.shape[-1] != 3 or frames.size == 0:
        raise ValueError(f"frames must have shape [n y x 3] with nothing empty, got {frames.shape}.")
    if not fps > 0:
        raise ValueError(f"fps must be positive, got {fps}.")
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial.mp4")
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    height, width = frames.shape[1:3]
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "-"]
    encoder = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-threads", "1"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *source, *encoder, str(partial)]
    done = subprocess.run(command, input=np.ascontiguousarray(frames).tobytes(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode != 0:
        partial.unlink(missing_ok=True)
        raise RuntimeError(f"ffmpeg must turn {len(frames)} frames of {width}x{height} into {path}, got: {done.stderr.decode().strip()}")
    partial.replace(path)


def read_video(path: str | os.PathLike[str]) -> tuple[UInt8[np.ndarray, "n y x 3"], float]:
    """The frames (RGB) of a film, and how many there are in a second. Raises FileNotFoundError, or RuntimeError for what is no film."""
    if not pathlib.Path(path).exists():
        raise FileNotFoundError(f"film must exist, got {path}.")
    frames = imageio_ffmpeg.read_frames(str(path))
    told = next(frames)
    width, height = told["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in frames]), float(told["fps"])
