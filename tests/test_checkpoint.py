"""Checkpoints come back bit for bit, on other devices too; what failed or is damaged is never taken for one."""

import pathlib
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from ebt_jax import formats
from ebt_jax.checkpoint import CheckpointError, Checkpoints, locate, save_safetensors, tree_differences
from ebt_jax.sharding import abstract, make_mesh, shardings

ASSETS = {"config.json": b"{}", "format.json": formats.format_file()}


def tree(seed=0, rows=256):
    generator = np.random.default_rng(seed)
    return {"a": {"w": generator.standard_normal((rows, 512)).astype(np.float32)}, "b": np.arange(7, dtype=np.int32)}


def trees(seed=0, rows=256):
    return {"params": tree(seed, rows), "ema_params": tree(seed + 1, 2), "training": {"step": np.int32(seed)}}


def shapes(values):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), values)


def placed(values, mesh):
    return jax.device_put(values, shardings(values, mesh))


def assert_same_bytes(found, wanted):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a).view(np.uint8), np.asarray(b).view(np.uint8)), found, wanted)


def test_the_newest_stay_and_every_so_many_for_ever(tmp_path):
    with Checkpoints(tmp_path, keep=2, keep_every=3) as checkpoints:
        for step in range(1, 6):
            checkpoints.save(step, trees(step, 1), ASSETS)
        checkpoints.wait()
        assert checkpoints.steps == [3, 4, 5]


def test_a_workdir_may_have_a_number_for_a_name(tmp_path):
    workdir = tmp_path / "7"
    checkpoints = workdir / "checkpoints"
    checkpoints.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="Has the run saved yet"):
        locate(workdir, "policy")
    with Checkpoints(checkpoints) as writer:
        for step in (1, 2):
            writer.save(step, trees(step, 1), ASSETS)
    for path, step in ((workdir, 2), (checkpoints, 2), (checkpoints / "1", 1)):
        found, number = locate(path, "policy")
        assert (pathlib.Path(found), number) == (checkpoints, step)


def test_a_state_comes_back_on_other_devices(tmp_path):
    """8 x 1 -> one device -> 4 x 2, with the bytes of the first."""
    values = tree()
    for number, sizes in enumerate([(8, 1), (1, 1), (4, 2)]):
        mesh = make_mesh(*sizes, devices=jax.devices()[: sizes[0] * sizes[1]])
        if number:
            with Checkpoints(tmp_path / str(number - 1), read_only=True) as checkpoints:
                state = checkpoints.restore(1, "params", abstract(values, mesh))
            assert_same_bytes(state, values)
            assert state["a"]["w"].sharding == shardings(values, mesh)["a"]["w"]
        else:
            state = placed(values, mesh)
        with Checkpoints(tmp_path / str(number)) as checkpoints:
            checkpoints.save(1, {**trees(), "params": state}, ASSETS)
    assert state["a"]["w"].addressable_shards[0].data.shape == (256, 256)


def test_what_a_kill_left_behind_is_not_listed_and_is_removed(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, trees(1, 1), ASSETS)
    stale = tmp_path / "2.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "1", stale)
    with Checkpoints(tmp_path, read_only=True) as reader:
        assert reader.steps == [1]
    assert stale.exists()
    with Checkpoints(tmp_path) as writer:
        assert writer.steps == [1]
        writer.save(2, trees(2, 1), ASSETS)
        writer.wait()
        assert writer.steps == [1, 2]
        assert_same_bytes(writer.restore(2, "params", shapes(tree(2, 1))), tree(2, 1))
    assert not stale.exists()


def test_a_save_that_the_disk_refuses_is_said_and_not_listed(tmp_path):
    """A real refusal: no file of this process may grow beyond 200 kB for a while."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, trees(1, 1), ASSETS)
    checkpoints.wait()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        checkpoints.save(2, trees(2, 2048), ASSETS)
        with pytest.raises(CheckpointError, match="The newest good checkpoint is 1"):
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoints.steps == [1]
    with Checkpoints(tmp_path) as again:
        again.save(2, trees(2, 4), ASSETS)
        again.wait()
        assert again.steps == [1, 2]


def cut(folder):
    """Loses the second half of the largest file, as a copy that was interrupted does."""
    path = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


@pytest.mark.parametrize("break_it", [cut, empty, shutil.rmtree])
def test_damage_is_named_with_the_newest_whole_step(tmp_path, break_it):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, trees(step), ASSETS)
    for step in (2, 3):
        break_it(tmp_path / str(step) / "params")
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        with pytest.raises(CheckpointError, match=r"got damage: .* The newest whole one is 1: use that, or remove .*/3 to go on"):
            checkpoints.restore(3, "params", shapes(tree()))
        assert_same_bytes(checkpoints.restore(1, "params", shapes(tree(1))), tree(1))


def test_what_keeps_the_other_steps_from_being_read_is_said(tmp_path, monkeypatch):
    """It may be no damage at all: a tree that is too large for one device, a disk that is away."""
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, trees(step), ASSETS)
    cut(tmp_path / "3" / "params")
    (tmp_path / "2/assets/config.json").write_text("{ }")
    read = Checkpoints._read

    def scarce(self, step, name, like):
        if step == 1:
            raise RuntimeError("RESOURCE_EXHAUSTED: 16 GB")
        return read(self, step, name, like)

    monkeypatch.setattr(Checkpoints, "_read", scarce)
    expected = (
        r"No other step is whole \(2: changed since it was saved: assets/config.json, 1: cannot be read: RuntimeError: RESOURCE_EXHAUSTED"
    )
    with Checkpoints(tmp_path, read_only=True) as checkpoints, pytest.raises(CheckpointError, match=expected):
        checkpoints.restore(3, "params", shapes(tree()))


def flip(path, place):
    """Turns one bit of a file over, as a bad disk or a bad copy does."""
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)


def test_a_flipped_bit_is_never_taken_for_a_parameter(tmp_path):
    """Wherever in the files it falls: it is said, or it does not reach the arrays. Some only the digests see."""
    values = trees(rows=16)
    with Checkpoints(tmp_path / "whole") as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, values, ASSETS)
    generator, seen, by_digest = np.random.default_rng(0), 0, 0
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole/2/params").rglob("*") if path.is_file()]
    for number, file in enumerate(file for file in files for _ in range(3)):
        copy = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", copy)
        flip(copy / file, generator.integers((copy / file).stat().st_size))
        with Checkpoints(copy, read_only=True) as checkpoints:
            try:
                assert_same_bytes(checkpoints.restore(2, "params", shapes(values["params"])), values["params"])
            except CheckpointError as error:
                seen += 1
                by_digest += "got damage: changed since it was saved: params/a/w. The newest whole one is 1" in str(error)
    assert seen > len(files) / 2
    assert by_digest


def test_a_flipped_bit_in_a_sharded_array_is_named_on_other_devices(tmp_path):
    values, mesh = tree(), make_mesh(2, 4)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {**trees(), "params": placed(values, mesh)}, ASSETS)
    path = max((path for path in (tmp_path / "1/params").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    flip(path, path.stat().st_size // 2)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        with pytest.raises(CheckpointError, match=r"/1 must hold a whole checkpoint, got damage: .*No other step is whole: start"):
            checkpoints.restore(1, "params", abstract(values, make_mesh(4, 1, jax.devices()[:4])))
        assert_same_bytes(checkpoints.restore(1, "ema_params", shapes(tree(1, 2))), tree(1, 2))


@pytest.mark.parametrize(("file", "place"), [("config.json", 1), ("format.json", -2), ("digests.json", 60)])
def test_a_flipped_bit_in_a_small_file_is_seen(tmp_path, file, place):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, trees(), {**ASSETS, "config.json": b'{"keep_every": 0}'})
    flip(tmp_path / "2/assets" / file, place)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        with pytest.raises(CheckpointError, match=r"/2 must hold a whole checkpoint, got damage: .*The newest whole one is 1"):
            checkpoints.assets(2)
        checkpoints.assets(1)


def test_an_older_checkpoint_without_digests_is_read(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, trees(), ASSETS)
    (tmp_path / "1/assets/format.json").write_bytes(formats.format_file(2))
    with Checkpoints(tmp_path, read_only=True) as checkpoints, pytest.raises(CheckpointError, match="saved: assets/format.json"):
        checkpoints.assets(1)
    (tmp_path / "1/assets/digests.json").unlink()
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert_same_bytes(checkpoints.restore(1, "params", shapes(tree())), tree())


def test_a_file_that_is_added_later_is_read_as_it_is(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, trees(), ASSETS)
    (tmp_path / "1/assets/calibration.json").write_text("{}")
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.assets(1)["calibration.json"] == b"{}"


def test_another_tree_is_refused_leaf_by_leaf(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, trees(), ASSETS)
    other = {"a": {"w": jnp.zeros((256, 511)), "v": jnp.zeros(3)}, "b": jnp.zeros(7)}
    with Checkpoints(tmp_path, read_only=True) as checkpoints, pytest.raises(CheckpointError, match="3 differences") as error:
        checkpoints.restore(1, "params", other)
    for line in (
        "a/v: expected float32[3], got nothing",
        "a/w: expected float32[256, 511], got float32[256, 512]",
        "b: expected float32[7], got int32[7]",
    ):
        assert line in str(error.value)
    assert tree_differences(other, other) == []


def test_parameters_leave_as_safetensors(tmp_path):
    values = placed(tree(), make_mesh(4, 2))
    save_safetensors(tmp_path / "params.safetensors", values, {"step": "3"})
    found = load_file(tmp_path / "params.safetensors")
    assert set(found) == {"a/w", "b"}
    assert_same_bytes(found, {"a/w": tree()["a"]["w"], "b": tree()["b"]})
    assert [path.name for path in tmp_path.iterdir()] == ["params.safetensors"]
    save_safetensors(tmp_path / "scalar.safetensors", {"log_step_size": jnp.float32(0.5)})
    assert load_file(tmp_path / "scalar.safetensors")["log_step_size"].shape == ()
