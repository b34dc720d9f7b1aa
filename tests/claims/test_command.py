"""The command as a person types it: lists, plans, refuses."""

import os
import pathlib
import subprocess
import sys

import pytest
from made_up import small, write_cells, write_settings

ROOT = pathlib.Path(__file__).parents[2]


def run(*arguments, module="benchmarks.claims"):
    environment = {**os.environ, "XLA_FLAGS": ""}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


def flags(tmp_path):
    return [f"--settings={tmp_path / 'settings.json'}", f"--results={tmp_path / 'results'}", f"--runs={tmp_path / 'runs'}"]


def test_help_tells_what_it_does():
    done = run("--help")
    assert done.returncode == 0
    assert "Runs every cell that is not finished" in done.stdout
    for flag in ("--scale", "--phase", "--[no]list", "--[no]dry_run", "--change"):
        assert flag in done.stdout


def test_finished_cells_are_listed_and_not_planned_again(tmp_path):
    settings = write_settings(tmp_path, small)
    write_cells(settings, tmp_path / "results", "development", {"flow": 0.5})
    listed = run("--list", *flags(tmp_path)).stdout.splitlines()
    assert [line.split()[:2] for line in listed[:2]] == [
        ["missing", "development/small/pusht/ebt-mse/2_core_minutes/seed_0"],
        ["done", "development/small/pusht/flow/2_core_minutes/seed_0"],
    ]
    assert listed[-1].startswith("6 of 12 finished; ")
    planned = run("--dry_run", *flags(tmp_path)).stdout.splitlines()
    assert len(planned) == 7
    assert all("ebt-mse" in line for line in planned[:-1])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--contestants=glow"], "contestants of development at small must be among"),
        (["--budgets=two"], "--budgets must be whole numbers"),
        (["--change=batch_size"], "--change must be KEY=JSON"),
        (["--phase=confirmation", "--change=batch_size=1", "--list"], "confirmation must run from the committed settings alone"),
        (["--phase=confirmation"], "--settings must be settings.json beside the code for confirmation"),
    ],
)
def test_mistakes_are_told(arguments, said, tmp_path):
    write_settings(tmp_path, small)
    done = run(*arguments, *flags(tmp_path))
    assert done.returncode in (1, 2)
    assert said in done.stderr


def test_a_phase_that_a_scale_does_not_have_is_refused():
    done = run("--scale=breadth", "--list")
    assert done.returncode == 2
    assert "--phase must be one that a suite of scale 'breadth' has, got 'development'" in done.stderr


@pytest.mark.parametrize("folder", ["results", "runs"])
def test_a_confirmation_has_one_place(folder, tmp_path):
    done = run("--phase=confirmation", f"--{folder}={tmp_path}")
    assert done.returncode == 2
    assert f"--{folder} must be left at " in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_rendering_writes_the_page(tmp_path):
    settings = write_settings(tmp_path, small)
    write_cells(settings, tmp_path / "results", "development", {"flow": 0.5})
    done = run(f"--settings={tmp_path / 'settings.json'}", f"--results={tmp_path / 'results'}", module="benchmarks.claims.render")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "development" / "small.md").read_text().startswith("# Claims: development at scale small")
