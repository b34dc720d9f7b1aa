"""What results.json says of the code it was made by."""

import pathlib
import subprocess

import pytest

from ebt_jax import simulators
from ebt_jax.evaluation import results


def test_the_commit_is_of_a_repository_that_holds_the_package(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not of one that merely lies around it, as around .venv/lib/python3.11/site-packages."""

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        return subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    module = tmp_path / "environment" / "results.py"
    module.parent.mkdir()
    module.write_text("")
    monkeypatch.setattr(results, "__file__", str(module))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert results.git_commit() == ""
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message=another project")
    assert results.git_commit() == ""
    git("add", ".")
    git("commit", "--quiet", "--message=with the package")
    assert results.git_commit() == git("rev-parse", "HEAD")
    module.write_text("changed")
    assert results.git_commit() == git("rev-parse", "HEAD") + "-dirty"


def test_versions_are_of_what_the_suites_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"python", "jax", "metaworld", "mujoco"} <= set(results.versions())
    assert "pytest" not in results.versions()
    adapter = simulators.SUITES["pusht"]._replace(versions=("pytest", "no-such-distribution"))
    monkeypatch.setitem(simulators.SUITES, "another", adapter)
    assert results.versions()["pytest"] == pytest.__version__
