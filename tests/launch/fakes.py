"""Stand-ins for cloud commands: they note what they were asked and answer from a script."""

import json
import pathlib
import stat
import sys

FAKE = """#!{python}
import json, pathlib, sys
folder = pathlib.Path({folder!r})
words = [{name!r}, *sys.argv[1:]]
with (folder / "calls.jsonl").open("a") as file:
    file.write(json.dumps(words) + "\\n")
answers = json.loads((folder / "answers.json").read_text())
for answer in answers:
    if answer["left"] and all(part in " ".join(words) for part in answer["when"]):
        answer["left"] -= 1
        (folder / "answers.json").write_text(json.dumps(answers))
        print(answer["say"], file=sys.stderr if answer["code"] else sys.stdout)
        sys.exit(answer["code"])
"""


class Fakes:
    """A folder for PATH with fake commands in it."""

    def __init__(self, folder: pathlib.Path, *names: str) -> None:
        folder.mkdir()
        self.folder = folder
        self._answers: list[dict] = []
        self._write()
        for name in names:
            path = folder / name
            path.write_text(FAKE.format(python=sys.executable, folder=str(folder), name=name))
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def answer(self, *when: str, say: str = "", code: int = 0, times: int = 1_000) -> None:
        """What a call that holds all of `when` says, so many times, on stderr where it fails; earlier answers go first."""
        self._answers.append({"when": when, "say": say, "code": code, "left": times})
        self._write()

    def calls(self, *holding: str) -> list[list[str]]:
        """The calls so far that hold all of `holding`, in order."""
        path = self.folder / "calls.jsonl"
        calls = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [words for words in calls if all(part in " ".join(words) for part in holding)]

    def _write(self) -> None:
        (self.folder / "answers.json").write_text(json.dumps(self._answers))
