"""Jobs give the same results wherever they run, and their errors arrive."""

import functools
import json
import operator
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import toy_rlds
from etils import epath

from ebt_jax.data import jobs
from ebt_jax.data.array_record import to_array_record
from ebt_jax.data.folder import read_folder
from ebt_jax.data.index import open_index
from ebt_jax.data.standardize import Entry


def test_processes_answer_in_order_raise_what_a_job_raises_and_name_the_item_that_kills_one():
    runner = jobs.in_processes(2)
    assert list(runner(os.path.basename, [f"/a/{number}" for number in range(9)])) == [str(number) for number in range(9)]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(runner(os.listdir, ["/", "/nowhere", "/"]))
    with pytest.raises(RuntimeError, match="until its job is done, got exit code 3 at 3"):
        list(runner(os._exit, [3]))


def test_a_long_item_that_kills_a_process_is_named_in_short():
    with pytest.raises(RuntimeError, match=r"got exit code 3 at \"__import__.* set data\.index_processes lower") as caught:
        list(jobs.in_processes(1)(eval, ["__import__('os')._exit(3)  # " + 100_000 * "x"]))
    assert len(str(caught.value)) < 500
    task = functools.partial(os._exit, 3)
    task.path = "/cache/part-7.npz"
    with pytest.raises(RuntimeError, match=r"got exit code 3 at /cache/part-7\.npz\. -9"):
        list(jobs.in_processes(1)(operator.call, [task]))


def test_long_jobs_say_how_far_they_are(caplog, monkeypatch):
    monkeypatch.setattr(jobs, "SAY_EVERY", -1.0)
    with caplog.at_level("INFO"):
        assert list(jobs.say(iter("ab"), 2, "reading")) == ["a", "b"]
    assert [record.getMessage()[:15] for record in caplog.records] == ["reading: 1 of 2", "reading: 2 of 2"]


@pytest.fixture
def folder(make_folder):
    splits = {"train": toy_rlds.shards(), "test": [[toy_rlds.make_episode(9, 3)]], "empty": [[]]}
    return read_folder(epath.Path(make_folder("toy", toy_rlds.STEPS, splits, toy_rlds.SPEC)))


@pytest.mark.slow
def test_beam_runs_the_same_jobs(folder, tmp_path):
    pytest.importorskip("apache_beam")
    from ebt_jax.data.beam import on_beam

    runner = on_beam(["--runner=DirectRunner"])
    alone = open_index(folder, "train", Entry(toy_rlds.SPEC))
    index = open_index(folder, "train", Entry(toy_rlds.SPEC), str(tmp_path / "beam"), runner=runner, parts_dir=str(tmp_path / "parts"))
    np.testing.assert_array_equal(index.columns["action"], alone.columns["action"])
    assert list((tmp_path / "parts").iterdir()) == []
    rewritten = to_array_record(folder, tmp_path / "out", runner)
    assert len(list(rewritten.glob("*.array_record*"))) == 4


def test_beam_that_is_not_there_says_what_to_install(monkeypatch):
    from ebt_jax.data.beam import on_beam

    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"pip install 'ebt_jax\[beam\]'"):
        on_beam()


def test_the_command_finds_all_before_it_reads_any(folder, make_folder, cache, tmp_path):
    make_folder("unknown", toy_rlds.STEPS, {"train": toy_rlds.shards()})
    (tmp_path / "mine.json").write_text(json.dumps(dict.fromkeys(("toy", "unknown", "absent", "gone"), 1.0)))
    command = [sys.executable, "-m", "ebt_jax.prepare", f"--data_dir={tmp_path / 'data'}", f"--mixture={tmp_path / 'mine.json'}"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, cache.exists()) == (1, "", False)
    for message in ("'unknown' must have an ebt_spec.json", "'absent' must lie at", "'gone' must lie at"):
        assert message in done.stderr


@pytest.mark.slow
def test_the_command_indexes_every_split_and_rewrites(folder, tmp_path):
    data, run = tmp_path / "data", [sys.executable, "-m", "ebt_jax.prepare", "--mixture=toy"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def answer(*flags):
        done = subprocess.run([*run, *flags], env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return [pathlib.Path(line) for line in done.stdout.splitlines()]

    made = answer(f"--data_dir={data}", "--processes=2")
    assert made == [open_index(folder, split, Entry(toy_rlds.SPEC)).cache for split in ("test", "train")]
    (written,) = answer(f"--data_dir={data}", f"--array_record={tmp_path / 'out'}", "--processes=0")
    assert read_folder(epath.Path(written)).file_format == "array_record"
