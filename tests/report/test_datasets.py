"""What the command prints and writes: listing, tables, report.html and inspection.json."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from bs4 import BeautifulSoup
from typed import outcomes

from ebt_jax.data.folder import find_folder
from ebt_jax.data.inspection import facts, mixture_rows, sample
from ebt_jax.data.oxe import describe
from ebt_jax.data.settings import DataSettings, bundled_sample_dir
from ebt_jax.report.datasets import FRAMES, PICTURE, contact_sheet, write_dataset_report
from ebt_jax.report.tables import listing, mixture_table

NAME = "metaworld_pick_place_v3"


def command(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ebt_jax.inspect_data", *flags], capture_output=True, text=True)


def test_a_dataset_gets_a_table_a_page_and_json(tmp_path: pathlib.Path) -> None:
    done = command(f"--data_dir={bundled_sample_dir()}", f"--dataset={NAME}", f"--output={tmp_path}", "--episodes=5")
    assert done.returncode == 0, done.stderr
    assert "sampled 5 of" in done.stdout
    assert "gripper gripper: agrees with the state" in done.stdout
    tree = json.loads((tmp_path / "inspection.json").read_text())["datasets"][0]
    assert tree["sampled"]["episodes"] == 5
    page = BeautifulSoup((tmp_path / "report.html").read_text(), "html.parser")
    titles = [heading.text for heading in page.find_all("h2")]
    assert [title for title in titles if title != "Lengths"] == [
        "What stands out",
        "Actions",
        "Gripper",
        "State",
        "Language",
        "Specification",
    ]
    assert "5 of" in page.text


def test_wrong_usage_ends_with_2(tmp_path: pathlib.Path) -> None:
    wrong = (
        (("--dataset=a", "--mixture=b"), "must not both be given"),
        (("--mixture=octo/nobody",), "mixture must be a dataset, a JSON file or one of"),
        (("--mixture=a", "--validation_fraction=1.5"), "validation_fraction must be in [0, 1), got 1.5"),
    )
    found = outcomes("inspect_data", [(f"--data_dir={tmp_path}", *flags) for flags, _ in wrong])
    for (flags, words), (code, said) in zip(wrong, found, strict=True):
        assert (code, words in said) == (2, True), (flags, said)


def test_a_folder_lists_what_lies_in_it_and_what_nobody_describes(tmp_path: pathlib.Path) -> None:
    (tmp_path / NAME).symlink_to(pathlib.Path(bundled_sample_dir()) / NAME)
    (tmp_path / "notes").mkdir()
    header, row, note = listing(str(tmp_path)).splitlines()
    assert header.split() == ["dataset", "version", "episodes", "files", "format", "Hz", "cameras", "action"]
    assert row.startswith(f"{NAME}  1.0.0    train ")
    assert "hand_x [m]" in row
    assert note.startswith("notes: dataset 'notes' must lie at")
    with pytest.raises(FileNotFoundError, match="which is not there"):
        listing(str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match="one folder each, got none"):
        listing(str(tmp_path / "notes"))


def test_a_mixture_gets_shares_and_sections_by_name(tmp_path: pathlib.Path) -> None:
    folder = find_folder(bundled_sample_dir(), NAME)
    found = sample(folder, describe(folder), "train", 3)
    rows = mixture_rows([found], DataSettings(bundled_sample_dir(), {NAME: 2.0}))
    header, row = mixture_table(rows).splitlines()
    assert header.split()[:4] == ["dataset", "version", "share", "episodes"]
    assert row.split()[2] == "1"
    page = BeautifulSoup(write_dataset_report(tmp_path / "report.html", "mine", [facts(found)], [found], rows).read_text(), "html.parser")
    titles = [heading.text for heading in page.find_all("h2")]
    assert titles[:2] == ["Mixture", f"{NAME}: What stands out"]


def test_contact_sheet_puts_every_picture_in_its_place() -> None:
    frames = [[np.full((4, 8, 3), 20 * row + column, np.uint8) for column in range(3)] for row in range(2)]
    sheet = contact_sheet(frames)
    assert sheet.shape == (2 * PICTURE // 2 + 3, FRAMES * (PICTURE + 3) - 3, 3)
    for row in range(2):
        for column in range(3):
            assert (sheet[row * (PICTURE // 2 + 3) + 1, column * (PICTURE + 3) + 1] == 20 * row + column).all()
