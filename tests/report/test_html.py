"""A page needs nothing beside itself, shows what it is given, and trusts no text."""

import base64
import os

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from ebt_jax.report.html import Section, code, figure, fold, gallery, image, numbers, show, table, video, write_page
from ebt_jax.report.plots import training_curves


@pytest.fixture
def page(tmp_path):
    film = tmp_path / "film.mp4"
    film.write_bytes(b"not really a film")
    plot = figure(training_curves([{"step": 0, "loss": 1.0}, {"step": 1, "loss": 0.5}]), "a curve")
    blocks = [plot, table(("task", "n"), [("reach", 3)]), image(np.full((4, 6, 3), 7, np.uint8), "a picture"), fold("more", code("a < b"))]
    sections = [Section("First", "Words & signs.", blocks), Section("Second", "", [gallery([video(film, "a film")])])]
    return BeautifulSoup(
        write_page(tmp_path / "deep" / "report.html", "A <title>", sections, "about", {"loss": 0.25}).read_text(), "html.parser"
    )


def test_nothing_outside_is_needed(page):
    assert not page.find_all(["script", "link", "iframe", "object"])
    sources = [tag["src"] for tag in page.find_all(src=True)]
    assert len(sources) == 2
    assert all(source.startswith("data:") for source in sources)
    for tag in page.find_all(["use", "image", "a"]):
        for name in ("href", "xlink:href"):
            assert tag.get(name, "#").startswith(("#", "data:"))
    assert "url(http" not in str(page)
    assert "@import" not in str(page)


def test_everything_given_is_there(page):
    assert page.title.text == page.h1.text == "A <title>"
    assert [heading.text for heading in page.find_all("h2")] == ["First", "Second"]
    assert page.find("p", class_=None).text == "Words & signs."
    assert [cell.text for cell in page.find("table").find_all("td")] == ["reach", "3"]
    assert page.dl.dd.text == "0.25"
    assert base64.b64decode(page.video["src"].partition(",")[2]) == b"not really a film"
    assert page.pre.text == "a < b"


def test_pictures_keep_their_pixels(page, tmp_path):
    (tmp_path / "x.png").write_bytes(base64.b64decode(page.img["src"].partition(",")[2]))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "x.png")), np.full((4, 6, 3), 7))


def test_figures_follow_the_page(page):
    drawing = page.svg
    assert drawing["aria-label"] == "a curve"
    assert "var(--ink)" in str(drawing)
    assert "#1c2130" not in str(drawing)
    assert "loss" in drawing.text  # text stays text


def test_text_is_never_markup(tmp_path):
    evil = "<script>alert(1)</script>"
    blocks = [
        table((evil,), [(evil,)]),
        numbers({evil: evil}),
        fold(evil, code(evil)),
        figure(training_curves([{"step": 0, evil: 1.0}]), evil),
    ]
    text = write_page(tmp_path / "page.html", evil, [Section(evil, evil, blocks)], evil).read_text()
    assert not BeautifulSoup(text, "html.parser").find_all("script")


def test_numbers_stand_right_and_words_left():
    body = BeautifulSoup(table(("a", "b", "c"), [("x", 1, 2.0), ("y", 10, "z")]), "html.parser")
    assert [cell.get("class") for cell in body.find_all("td")[:3]] == [None, ["number"], None]


@pytest.mark.parametrize(
    ("value", "shown"), [(0.123456, "0.1235"), (1e-9, "1e-09"), (12345, "12345"), (True, "yes"), (None, ""), (np.float32(0.5), "0.5")]
)
def test_show(value, shown):
    assert show(value) == shown


def test_a_page_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    def full_disk(file):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_page(tmp_path / "page.html", "title", [])
    assert not (tmp_path / "page.html").exists()
