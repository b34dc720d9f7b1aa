"""Confirmation asks git."""

import subprocess

import pytest

from benchmarks.claims.frozen import frozen_commit, sources


def git(folder, *arguments):
    who = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    return subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "method.py").write_text("one = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "code")
    return tmp_path


def test_only_committed_settings_and_code_confirm(checkout):
    settings = checkout / "settings.json"
    settings.write_text("{}")
    with pytest.raises(ValueError, match="settings.json must be committed before confirmation"):
        frozen_commit(settings, checkout, ("code",))
    git(checkout, "add", ".")
    with pytest.raises(ValueError, match="must be unchanged since their commit"):
        frozen_commit(settings, checkout, ("code",))
    git(checkout, "commit", "-qm", "freeze")
    frozen = git(checkout, "rev-parse", "HEAD")
    (checkout / "result.json").write_text("{}")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "a result")
    assert frozen_commit(settings, checkout, ("code",)) == frozen != git(checkout, "rev-parse", "HEAD")
    (checkout / "other.txt").write_text("beside the code, and of no concern")
    assert frozen_commit(settings, checkout, ("code",)) == frozen


@pytest.mark.parametrize("changed", ["settings.json", "code/method.py", "code/new.py"])
def test_a_change_is_named(checkout, changed):
    settings = checkout / "settings.json"
    settings.write_text("{}")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "freeze")
    (checkout / changed).write_text("two = 2\n")
    with pytest.raises(ValueError, match=f"got changes in .*{changed}"):
        frozen_commit(settings, checkout, ("code",))


def test_without_git_nothing_confirms(tmp_path):
    with pytest.raises(ValueError, match="must run in a git checkout"):
        frozen_commit(tmp_path / "settings.json", tmp_path)


def test_sources_are_the_committed_code_and_not_the_settings_beside_it(checkout):
    (checkout / "code" / "settings.json").write_text("{}")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "settings")
    first = sources(checkout, ("code",))
    (checkout / "code" / "settings.json").write_text('{"scale": 1}')
    (checkout / "result.json").write_text("{}")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "another scale and a result")
    assert sources(checkout, ("code",)) == first
    (checkout / "code" / "method.py").write_text("one = 2\n")
    git(checkout, "commit", "-qam", "another method")
    assert sources(checkout, ("code",)).keys() == first.keys()
    assert sources(checkout, ("code",)) != first


def test_without_git_sources_are_unknown(tmp_path):
    assert sources(tmp_path) == {}
