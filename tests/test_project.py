"""The project's promises about itself: what it installs, what its pages tell people to type, what its files may not say."""

import os
import pathlib
import re
import shutil
import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = pathlib.Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
LOCKED_EXTRAS = ("tf", "metaworld", "sim", "convert", "dev")


def requirements() -> list[Requirement]:
    """The runtime ranges of requirements.txt."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines())
    return [Requirement(line) for line in lines if line]


def locked() -> dict[str, list[Requirement]]:
    """Package -> its pins in requirements.lock; more than one where Python versions differ."""
    pins: dict[str, list[Requirement]] = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line and line[0].isalnum():
            pin = Requirement(line.rstrip("\\ "))
            pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    return pins


def pages() -> list[pathlib.Path]:
    """Every page a reader may copy a command from."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "launch").rglob("*.md")]


@pytest.mark.parametrize(
    "name",
    ["jax", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "rlds", "ml-collections", "chex", "absl-py", "pytest"],
)
def test_the_promised_packages_are_required(name):
    assert name in {canonicalize_name(requirement.name) for requirement in requirements()}


@pytest.mark.parametrize("source", ["requirements.txt", *LOCKED_EXTRAS])
def test_the_lock_satisfies(source):
    pins = locked()
    ranges = requirements() if source == "requirements.txt" else [Requirement(text) for text in EXTRAS[source]]
    for wanted in ranges:
        versions = [Version(next(iter(pin.specifier)).version) for pin in pins.get(canonicalize_name(wanted.name), [])]
        assert versions, f"{wanted.name} is not in requirements.lock: run `make lock`"
        assert all(wanted.specifier.contains(version, prereleases=True) for version in versions), f"{wanted} but {versions}"


def test_every_pin_has_a_hash():
    blocks = re.split(r"\n(?=[a-z0-9])", (ROOT / "requirements.lock").read_text(), flags=re.IGNORECASE)[1:]
    assert len(blocks) > 100
    assert not [block.split()[0] for block in blocks if "--hash=sha256:" not in block]


def test_the_lock_holds_one_opencv_and_it_is_headless():
    assert [name for name in locked() if name.startswith("opencv")] == ["opencv-python-headless"]


def test_extras_are_declared():
    assert {"cuda12", "cuda13", "tpu", "parity", "beam", "gcs", *LOCKED_EXTRAS} <= set(EXTRAS)


def test_hooks_and_lock_use_the_same_ruff():
    (hook,) = re.findall(r"ruff-pre-commit\n\s+rev: v(\S+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert locked()["ruff"][0].specifier.contains(hook)


def test_commands_on_pages_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for page in pages():
        code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", page.read_text(), flags=re.DOTALL))
        named = set(re.findall(r"\bmake ([a-z-]+)", code))
        assert named <= targets, f"{page.relative_to(ROOT)} names {named - targets}, the Makefile has {targets}"
        for module in set(re.findall(r"python -m ebt_jax\.([a-z_.]+[a-z_])", code)):
            assert (ROOT / "ebt_jax" / f"{module.replace('.', '/')}.py").is_file(), f"{page.relative_to(ROOT)} names ebt_jax.{module}"


def test_commands_for_recordings_of_ones_own_hold_some_of_them_out():
    """Of fifty episodes the share that configs/oxe.py holds out of 60,096 is most often none, and the run is refused."""
    found = [span for page in pages() for span in re.findall(r"```.*?```|`[^`\n]+`", page.read_text(), flags=re.DOTALL)]
    own = [span for span in found if re.search(r"mixture=(my_robot|so100_pick)\b", span)]
    assert len(own) == 4
    assert not [span for span in own if "validation_fraction=" not in span]


@pytest.mark.parametrize("command", ["make train", "make test"])
def test_the_readme_tells_the_two_commands(command):
    assert command in (ROOT / "README.md").read_text()


def test_links_between_pages_lead_somewhere():
    for page in pages():
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_ci_takes_the_data_it_is_told_else_those_beside_the_checkout(tmp_path):
    """The script itself, with stand-ins for what it calls."""
    tools, checkout = tmp_path / "tools", tmp_path / "checkout"
    for folder in (tools, checkout / ".ci", tmp_path / "mine"):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", checkout / ".ci" / "run")
    for name, line in (("make", 'echo "data in $EBT_JAX_TEST_DATA"'), ("ldconfig", "echo libOSMesa")):
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(0o755)

    def run(**told: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", **told}
        return subprocess.run(["bash", str(checkout / ".ci" / "run")], capture_output=True, text=True, env=environment)

    assert f"data in {tmp_path / 'mine'}\n" in run(EBT_JAX_TEST_DATA=str(tmp_path / "mine")).stdout
    absent = run()
    assert absent.returncode == 1
    assert f"got none at {tmp_path}/shared/data. Set EBT_JAX_TEST_DATA" in absent.stderr
    (tmp_path / "shared" / "data").mkdir(parents=True)
    assert f"data in {tmp_path}/shared/data\n" in run().stdout
    assert run(EBT_JAX_TEST_DATA=str(tmp_path / "away")).returncode == 1


def test_files_name_no_folder_of_the_machine_they_were_made_on():
    """Anything absolute below a home, scratch or build folder means that the file works in one place only."""
    folders = "|".join(("work", "root", "tmp", "home", "Users", "builds", "workspace"))
    pattern = re.compile(rf"(?<![\w.:$/}})~-])/({folders})/[\w.]")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: no list of the project's files")
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        content = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b"\0"
        if b"\0" not in content:
            found += [f"{name}: {match.group()}" for match in pattern.finditer(content.decode())]
    assert not found
