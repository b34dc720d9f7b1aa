"""Confirmation is one shot: its settings and its code must be in the git history before it runs."""

import hashlib
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parents[2]
CODE = ("ebt_jax", "benchmarks/claims")


def frozen_commit(settings: pathlib.Path, root: pathlib.Path = ROOT, code: tuple[str, ...] = CODE) -> str:
    """The commit that last changed `settings`.

    Raises ValueError where the file is not committed or differs from its committed state, and where any file under `code` does.
    """
    try:
        tracked = _git(root, "ls-files", "--", str(settings))
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"confirmation must run in a git checkout, got none at {root}: {error}.") from error
    if not tracked:
        raise ValueError(f"{settings} must be committed before confirmation, got a file that git does not know. Commit it, then run.")
    changed = _git(root, "status", "--porcelain", "--", str(settings), *code).splitlines()
    if changed:
        raise ValueError(
            f"settings and code must be unchanged since their commit for confirmation, got changes in {[line[3:] for line in changed]}. "
            "Commit or undo them, then run."
        )
    return _git(root, "log", "-1", "--format=%H", "--", str(settings))


def sources(root: pathlib.Path = ROOT, code: tuple[str, ...] = CODE) -> dict[str, str]:
    """Folder of `code` -> hash of its files in the newest commit; {} outside of git.

    Of what `git ls-tree HEAD:FOLDER` prints, names and hashes of files and folders, but for the line of settings.json: what must stay
    of that file has a hash of its own.
    """
    try:
        found = {folder: _git(root, "ls-tree", f"HEAD:{folder}").splitlines() for folder in code}
    except (OSError, subprocess.CalledProcessError):
        return {}
    kept = {folder: "\n".join(line for line in lines if not line.endswith("\tsettings.json")) for folder, lines in found.items()}
    return {folder: hashlib.sha256(text.encode()).hexdigest() for folder, text in kept.items()}


def _git(root: pathlib.Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout.rstrip("\n")
