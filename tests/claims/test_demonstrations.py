"""Demonstrations are made once, by the project's own commands."""

import json
import os
import shutil
import subprocess
import sys
import threading

import pytest

from benchmarks.claims import demonstrations
from benchmarks.claims.demonstrations import ARCHIVE, data_sha256, dataset, prepare
from benchmarks.claims.settings import read_settings
from ebt_jax.data.mixture import open_mixture
from ebt_jax.data.pusht import published_episodes
from ebt_jax.data.settings import DataSettings, bundled_sample_dir
from ebt_jax.data.write import VERSION

SUITES = read_settings().scale("small").suites


@pytest.fixture
def commands(monkeypatch):
    """What would have been run."""
    run = []

    def note(command, **_):
        run.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(demonstrations.subprocess, "run", note)
    return run


def test_people_and_experts(commands, tmp_path):
    (tmp_path / ARCHIVE).mkdir(parents=True)
    prepare(SUITES["pusht"], tmp_path / "data", tmp_path)
    prepare(SUITES["assembly"], tmp_path / "data", None)
    python = [sys.executable, "-m"]
    where = f"--output={tmp_path / 'data'}"
    assert commands == [
        [*python, "ebt_jax.convert", "--source=pusht_zarr", f"--input={tmp_path / ARCHIVE}", "--name=pusht", where],
        [
            *[*python, "ebt_jax.collect", "--suite=metaworld", "--tasks=assembly-v3", "--episodes=10", "--seed=0", "--noise=0.1"],
            *["--name=metaworld_assembly_v3_10", where],
        ],
    ]


def test_the_published_ninety_many_tasks_and_cameras(commands, tmp_path):
    scales = read_settings().scales
    (tmp_path / ARCHIVE).mkdir(parents=True)
    prepare(scales["published"].suites["pusht-90"], tmp_path / "data", tmp_path)
    prepare(scales["breadth"].suites["ten-tasks"], tmp_path / "data", None)
    prepare(scales["full"].suites["square-pixels"], tmp_path / "data", None)
    people, many, filmed = commands
    (chosen,) = [argument for argument in people if argument.startswith("--episodes=")]
    assert sorted(map(int, chosen.removeprefix("--episodes=").split(","))) == published_episodes()
    assert "--name=pusht_90" in people
    assert f"--tasks={','.join(scales['breadth'].suites['ten-tasks'].tasks)}" in many
    assert "--episodes=10" in many
    assert "--cameras=primary,wrist" in filmed
    assert "--name=robosuite_nutassemblysquare_200_primary_wrist" in filmed


@pytest.mark.parametrize("name", [name for name, suite in SUITES.items() if "confirmation" in suite.phases and suite.demonstrations])
def test_what_confirms_is_recorded(name, commands, tmp_path):
    """Ten whole successes of the expert, the same bytes everywhere."""
    suite = SUITES[name]
    prepare(suite, tmp_path, None)
    assert commands == []
    mixture = open_mixture(DataSettings(data_dir=str(tmp_path), mixture=dataset(suite), cache_dir=str(tmp_path), validation_fraction=0.0))
    (found,) = mixture.datasets
    assert len(found.train.episodes) == suite.demonstrations
    assert suite.task in found.entry.spec.source


def test_what_is_there_is_not_made_again(commands, tmp_path):
    for suite in SUITES.values():
        (tmp_path / dataset(suite) / VERSION).mkdir(parents=True)
        prepare(suite, tmp_path, None)
    assert commands == []
    assert len({dataset(suite) for suite in SUITES.values()}) == len(SUITES)


def test_two_processes_make_it_once(monkeypatch, tmp_path):
    made = []
    other = threading.Thread(target=prepare, args=(SUITES["assembly"], tmp_path, None))

    def make(command, **_):
        made.append(command)
        if len(made) == 1:
            other.start()
            other.join(0.2)
            (tmp_path / dataset(SUITES["assembly"]) / VERSION).mkdir(parents=True)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(demonstrations.subprocess, "run", make)
    prepare(SUITES["assembly"], tmp_path, None)
    other.join()
    assert len(made) == 1


def test_people_must_have_shown_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"archives must be a folder that holds {ARCHIVE}, got None. Say --archives=DIR"):
        prepare(SUITES["pusht"], tmp_path, None)


def test_the_same_data_have_the_same_hash_wherever_they_lie(tmp_path):
    def opened(folder, **changes):
        return open_mixture(
            DataSettings(data_dir=str(folder), mixture="metaworld_pick_place_v3", cache_dir=str(folder / "cache"), **changes)
        )

    folders = tmp_path / "one", tmp_path / "other"
    for number, folder in enumerate(folders):
        shutil.copytree(bundled_sample_dir(), folder)
        for path in folder.rglob("*.tfrecord*"):
            os.utime(path, (number, number))
        (spec,) = folder.rglob("ebt_spec.json")
        spec.write_text(json.dumps({**json.loads(spec.read_text()), "source": f"collect --output={folder}"}))
    one, other = map(opened, folders)
    assert one.manifest() != other.manifest()
    assert data_sha256(one) == data_sha256(other)
    assert data_sha256(opened(folders[0], seed=1)) != data_sha256(one)


def test_a_failure_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(demonstrations.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1))
    with pytest.raises(RuntimeError, match=r"demonstrations of assembly-v3 must be made by ebt_jax.collect .*, got exit code 1"):
        prepare(SUITES["assembly"], tmp_path, None)
