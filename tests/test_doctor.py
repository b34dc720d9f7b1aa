"""The doctor finds what is wrong, says what to do, and tells by its exit code whether training is possible."""

import json
import socket

import pytest
from absl import flags
from absl.testing import flagsaver

from ebt_jax import doctor, images
from ebt_jax.doctor import Check


def checks(found) -> dict[str, Check]:
    return {check.name: check for check in found}


def test_this_machine_can_train() -> None:
    """What the tests run on; whatever cannot be told on every machine (ports, GL, memory) may be either way."""
    found = checks([*doctor.python(), *doctor.packages(), *doctor.devices(), *doctor.compiling(), *doctor.data(), *doctor.ffmpeg()])
    assert not [check for check in found.values() if check.needed and not check.ok]
    assert "8 x cpu" in found["devices"].found
    assert found["bundled sample"].found.startswith("metaworld_pick_place_v3")
    assert found["ffmpeg"].found.startswith("ffmpeg version")


def test_missing_and_wrong_packages_are_named() -> None:
    listed = ["numpy<1", "no-such-package>=1", "rlds>=99", "h5py>=99; extra == 'convert'"]
    found = checks(doctor.packages(listed))
    assert not found["packages"].ok
    assert found["packages"].needed
    assert "no-such-package is missing" in found["packages"].found
    assert "not <1" in found["packages"].found
    assert (found["packages beside training"].ok, found["packages beside training"].needed) == (False, False)
    assert found["extra [convert]"].remedy.endswith("pip install 'ebt_jax[convert]'")
    assert found["extra [tf]"].ok


def test_a_folder_that_cannot_be_written_and_test_data_that_is_not_there(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EBT_JAX_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("EBT_JAX_TEST_DATA", str(tmp_path / "absent"))
    found = checks(doctor.data())
    assert (found["index cache"].ok, found["index cache"].remedy) == (False, "Set $EBT_JAX_CACHE to a folder of yours")
    assert not found["test data"].ok
    assert found["bundled sample"].ok


def test_a_resize_that_is_not_compiled_says_how(monkeypatch) -> None:
    monkeypatch.setattr(images, "COMPILED", None)
    (check,) = doctor.resizing()
    assert (check.ok, check.needed, check.found) == (False, False, "by numpy")
    assert "install a C compiler" in check.remedy
    monkeypatch.setattr(images, "COMPILED", object())
    (check,) = doctor.resizing()
    assert (check.ok, check.remedy) == (True, "")


def test_a_port_that_is_taken(monkeypatch) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        monkeypatch.setattr(doctor, "PORTS", {holder.getsockname()[1]: "serve"})
        (check,) = doctor.ports()
    assert not check.ok
    assert "in use" in check.found
    assert "Choose another port" in check.remedy


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs main with these checks in place of the real ones: (what it prints, its exit code)."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()

    def run(checks, **values) -> tuple[str, int]:
        monkeypatch.setattr(doctor, "CHECKS", checks)
        with flagsaver.flagsaver(**values):
            try:
                doctor.main()
                code = 0
            except SystemExit as leaving:
                code = int(leaving.code or 0)
        return capsys.readouterr().out, code

    return run


def good():
    yield Check("good", True, True, "fine")


def lacking():
    yield Check("lacking", False, False, "absent", "install it")


def bad():
    yield Check("bad", False, True, "broken", "repair it")


def dying():
    raise OSError("out of order")
    yield


def test_exit_code_and_table(command) -> None:
    text, code = command([("good", True, good), ("lacking", False, lacking)], json=False)
    assert code == 0
    assert text.splitlines() == [
        "ok  good     fine",
        "--  lacking  absent",
        "",
        "what to do",
        "lacking: install it",
        "",
        "training is possible",
    ]
    text, code = command([("good", True, good), ("bad", True, bad)], json=False)
    assert code == 1
    assert "NO  bad   broken" in text
    assert text.rstrip().endswith("until the lines marked NO are repaired")


def test_json_and_a_check_that_dies(command) -> None:
    text, code = command([("dying", False, dying), ("good", True, good)], json=True)
    tree = json.loads(text)
    assert (tree["training_possible"], code) == (True, 0)
    assert tree["checks"][0]["found"] == "OSError: out of order"
    assert tree["checks"][1] == {"name": "good", "ok": True, "needed": True, "found": "fine", "remedy": ""}
    assert command([("dying", True, dying)], json=True)[1] == 1
