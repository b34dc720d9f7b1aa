"""Exit codes and words of a command as it is typed, many times: a process that has imported it forks for each."""

import json
import os
import pathlib
import subprocess
import sys

SCRIPT = """
import json, os, sys, tempfile
import ebt_jax.loading
from ebt_jax import cli, {command}
{prepare}
for arguments in json.loads(sys.argv[1]):
    with tempfile.TemporaryFile("w+") as said:
        child = os.fork()
        if not child:
            os.dup2(said.fileno(), 1), os.dup2(said.fileno(), 2)
            sys.argv = [{command!r}, *arguments]
            cli.run({command}.main, {command}.__doc__)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        print(json.dumps([code, said.read()]), flush=True)
"""
NOTHING_IS_LOADED = "ebt_jax.loading.load = lambda *_, **__: (os.write(2, b'loaded'), os._exit(3))"
"""What ends a call that comes as far as its policy."""


def outcomes(command: str, calls: list[tuple[str, ...]], prepare: str = NOTHING_IS_LOADED) -> list[tuple[int, str]]:
    """(exit code, what was printed) of each call of `ebt_jax.{command}`, with `prepare` run before."""
    script = SCRIPT.format(command=command, prepare=prepare)
    tests = pathlib.Path(__file__).parents[1]
    path = os.pathsep.join([str(tests / "evaluation"), str(tests / "serving"), os.environ.get("PYTHONPATH", "")])
    line = [sys.executable, "-c", script, json.dumps(calls)]
    done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]
