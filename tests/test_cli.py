"""What every command promises about its flags."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("command", "flag", "words"),
    [
        ("evaluate", "output", ("--merge",)),
        ("audit", "output", ("--policy=x", "--data_dir=x", "--dataset=x")),
        ("export", "output", ("--policy=x",)),
        ("inspect_data", "output", ("--data_dir=x",)),
        ("rank", "output", ("--policy=x", "--proposals=x")),
        ("collect", "output", ()),
        ("convert", "output", ("--source=lerobot", "--input=x")),
        ("prepare", "cache_dir", ("--data_dir=x", "--mixture=x")),
    ],
)
def test_a_bucket_is_no_place_to_write_to(command: str, flag: str, words: tuple[str, ...], tmp_path: pathlib.Path) -> None:
    """It became a local folder called gs:, which goes with the machine."""
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from ebt_jax import cli, {command}; cli.run({command}.main, '')"
    command_line = [sys.executable, "-c", script, f"--{flag}=gs://mine/out", *words]
    done = subprocess.run(command_line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert f"flag --{flag}=gs://mine/out: must lie on a disk. Mount the bucket" in done.stderr
    assert not list(tmp_path.iterdir())
