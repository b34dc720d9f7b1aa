"""Runs as users have them: started, killed, resumed, refused, interrupted."""

import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from ebt_jax import sharding
from ebt_jax.checkpoint import Checkpoints, unpack
from ebt_jax.interruption import Interrupted
from ebt_jax.loading import load
from ebt_jax.training import loop, metrics
from ebt_jax.training.loop import train
from ebt_jax.training.workdir import compare_workdir

TINY = pathlib.Path(__file__).parents[1] / "toys" / "tiny.py"
ROOT = pathlib.Path(__file__).parents[2]


def losses(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def parameter_bytes(workdir, step):
    step_dir = workdir / "checkpoints" / str(step)
    return {ema: [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(load(step_dir, ema=ema).params)] for ema in (True, False)}


def command(workdir, *overrides):
    return [sys.executable, "-m", "ebt_jax.train", f"--config={TINY}", f"--workdir={workdir}", *overrides]


def environment(tmp_path):
    return {**os.environ, "XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla")}


def wait_for(path, process, seconds=240):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, f"training ended with {process.returncode} before {path.name} appeared"
        assert time.monotonic() < deadline, f"{path} did not appear in {seconds} s"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_run_continues_bit_for_bit(tmp_path):
    """200 steps straight = 100 steps and up to 50 more, kill -9, resume, to 200: the same losses and the same bytes of parameters."""
    size = ["--config.num_steps=200", "--config.save_interval=100", "--config.eval_interval=0"]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    subprocess.run(command(straight, *size), check=True, cwd=ROOT, env=environment(tmp_path), capture_output=True)
    # Its loader stops after 150 batches: the kill cannot come too late.
    halting = [sys.executable, ROOT / "launch/local.py", "--inside=stall", "--after=150", "--", *command(killed, *size)[3:]]
    process = subprocess.Popen(halting, cwd=ROOT, env=environment(tmp_path), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for(killed / "checkpoints" / "100", process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 100 <= max(losses(killed)) <= 150
    again = subprocess.run(command(killed, *size), check=True, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True)
    assert "resumed at step 100" in again.stderr
    assert losses(killed) == losses(straight)
    assert set(losses(straight)) == set(range(1, 201))
    assert parameter_bytes(killed, 200) == parameter_bytes(straight, 200)


@pytest.mark.slow
def test_sigterm_saves_and_exits_75(tmp_path):
    process = subprocess.Popen(
        command(tmp_path / "run", "--config.num_steps=100000"), cwd=ROOT, env=environment(tmp_path), stderr=subprocess.PIPE, text=True
    )
    wait_for(tmp_path / "run" / "checkpoints" / "10", process)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 75, stderr[-2000:]
    saved = Checkpoints(tmp_path / "run" / "checkpoints", read_only=True).steps[-1]
    assert f"interrupted: saved step {saved} of 100000" in stderr
    assert max(losses(tmp_path / "run")) == saved


def test_a_step_folder_holds_what_a_policy_needs(tiny_run, tiny_config):
    with Checkpoints(tiny_run / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps == [10, 20]
        assets = checkpoints.assets(20)
    assert json.loads(assets["config.json"]) == tiny_config
    assert json.loads(assets["loader.json"]) == {"next_batch": 20}
    assert unpack(assets["example_batch.npz"])["actions"].shape == (1, 4, 4)
    assert unpack(assets["example_batch.npz"])["observation/proprio"].shape == (1, 2, 21)
    assert set(assets) == {
        "config.json",
        "specs.json",
        "statistics.json",
        "datasets.json",
        "loader.json",
        "example_batch.npz",
        "format.json",
        "digests.json",
    }
    (dataset,) = json.loads(assets["datasets.json"])
    assert (dataset["name"], dataset["version"], dataset["share"]) == ("metaworld_pick_place_v3", "1.0.0", 1.0)


def test_metrics_hold_losses_and_held_out_errors(tiny_run):
    lines = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert all("loss" in line for line in lines)
    held_out = [line for line in lines if "validation/loss" in line]
    assert [line["step"] for line in held_out] == [10, 20]
    assert {"validation/action_mse", "validation/mean_action_mse", "validation/error/hand_x"} <= set(held_out[0])
    assert 0 <= lines[5]["time/data"] <= 1
    assert list((tiny_run / "tensorboard").iterdir())


@pytest.mark.slow
def test_training_learns(tmp_path, tiny_config):
    """100 updates on real demonstrations bring the loss well below where it began."""
    mse = {"name": "ebt", "objective": "mse", "loss_steps": "every", "num_starts": 1}
    optimizer = {**tiny_config["optimizer"], "learning_rate": 1e-2}
    train({**tiny_config, "num_steps": 100, "eval_interval": 0, "save_interval": 0, "method": mse, "optimizer": optimizer}, tmp_path)
    values = losses(tmp_path)
    assert np.mean([values[step] for step in range(91, 101)]) < 0.6 * np.mean([values[step] for step in range(1, 6)])


def test_a_finished_run_started_again_changes_nothing(tiny_run, tiny_config):
    before = (tiny_run / "metrics.jsonl").read_bytes()
    state = train(tiny_config, tiny_run)
    assert int(state.step) == 20
    assert (tiny_run / "metrics.jsonl").read_bytes() == before


def test_another_configuration_is_refused_with_its_differences(tiny_run, tiny_config):
    changed = {**tiny_config, "batch_size": 32, "data": {**tiny_config["data"], "action_horizon": 8}}
    with pytest.raises(ValueError, match="2 differences") as error:
        train(changed, tiny_run)
    assert "batch_size: there 16, now 32" in str(error.value)
    assert "data.action_horizon: there 4, now 8" in str(error.value)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(tmp_path, tiny_config, monkeypatch):
    good = loop.train_batches

    def poisoned(*args):
        for number, batch in enumerate(good(*args)):
            yield batch._replace(actions=batch.actions * np.nan) if number == 14 else batch

    monkeypatch.setattr(loop, "train_batches", poisoned)
    with pytest.raises(FloatingPointError, match=r"step 15. The last good checkpoint is \[10\]"):
        train(tiny_config, tmp_path)
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).steps == [10]


def test_waiting_for_a_save_after_a_nan_is_no_update(tmp_path, tiny_config, monkeypatch):
    """A save may take minutes, an update may not: the run is not stuck, and what it saves is not lost."""
    good, phases = loop.train_batches, []

    def poisoned(*args):
        for number, batch in enumerate(good(*args)):
            yield batch._replace(actions=batch.actions * np.nan) if number == 11 else batch

    class Spied(loop.Watchdog):
        def __enter__(self):
            phases.append(self)
            return super().__enter__()

    wait = Checkpoints.wait
    monkeypatch.setattr(Checkpoints, "wait", lambda self: (phases.append(phases[0]._phase.name), wait(self)))
    monkeypatch.setattr(loop, "train_batches", poisoned)
    monkeypatch.setattr(loop, "Watchdog", Spied)
    with pytest.raises(FloatingPointError, match=r"step 12. The last good checkpoint is \[10\]"):
        train({**tiny_config, "eval_interval": 0}, tmp_path)
    assert phases[1:] == ["checkpoint"]


def test_a_full_disk_ends_the_run_with_what_is_safe(tmp_path, tiny_config, monkeypatch):
    """Also where nothing but TensorBoard's file finds no room."""
    write = metrics.EventsWriter.write_event

    def full(writer, event):
        if event.step == 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(writer, event)

    monkeypatch.setattr(metrics.EventsWriter, "write_event", full)
    with pytest.raises(OSError, match=rf"workdir {tmp_path}, got .*No space left.* The newest good checkpoint is (10|none), or one that"):
        train({**tiny_config, "eval_interval": 0}, tmp_path)
    assert max(losses(tmp_path)) == 12


@pytest.mark.slow
def test_a_run_goes_on_on_another_mesh(tiny_run, tiny_config, tmp_path, monkeypatch):
    """From replicas to sharded parameters: the same losses to rounding, and its checkpoints say which mesh they were made on."""
    shutil.copytree(tiny_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "20")
    monkeypatch.setattr(sharding, "SMALLEST_SHARDED", 64)
    mesh = {"data": 2, "fsdp": 4}
    state = train({**tiny_config, "mesh": mesh}, tmp_path / "run")
    assert any(leaf.sharding.spec != jax.sharding.PartitionSpec() for leaf in jax.tree.leaves(state.params))
    before, after = losses(tiny_run), losses(tmp_path / "run")
    np.testing.assert_allclose([after[step] for step in range(1, 21)], [before[step] for step in range(1, 21)], atol=1e-5)
    with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        assert json.loads(checkpoints.assets(20)["config.json"])["mesh"] == mesh


def test_rates_are_those_of_updates_alone(tmp_path, monkeypatch):
    """Two updates in 4 s, and 2 s of waiting for their batches; 30 s of compiling and 100 s of validation are not theirs."""
    log, values = loop.MetricsLog(tmp_path, 0), {"loss": np.float32(1.0), "gradient_norm": np.float32(1.0)}
    watch = metrics.Stopwatch()
    monkeypatch.setattr(watch, "take", lambda: (136.0, {"compile": 30.0, "data": 2.0, "step": 4.0, "validation": 100.0}))
    with log:
        assert loop.flush(log, 2, [values, values], 2, watch, 6, 4.0) is None
    (line,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert (line["updates_per_second"], line["samples_per_second"], line["mfu"]) == (2 / 6, 2.0, 0.5)
    assert line["goodput"] == 4 / 136


def test_a_wait_for_data_is_one_that_the_devices_share():
    @jax.jit
    def long(x):
        return {"loss": jax.lax.fori_loop(0, 30_000, lambda _, y: y @ y / 64.0, x)[0, 0]}

    x = np.ones((64, 64), np.float32)
    jax.block_until_ready(long(x))  # compiles
    pending = [long(x)]
    assert not loop.out_of_work(pending)
    jax.block_until_ready(pending)
    assert loop.out_of_work(pending)
    assert loop.out_of_work(jax.device_get(pending))
    assert loop.out_of_work([])


@pytest.mark.slow
def test_a_slow_loader_shows_in_the_share_of_data(tmp_path, tiny_config, monkeypatch):
    fast = loop.train_batches

    def slow(*arguments):
        for batch in fast(*arguments):
            time.sleep(0.15)
            yield batch

    monkeypatch.setattr(loop, "train_batches", slow)
    train({**tiny_config, "num_steps": 6, "eval_interval": 0, "save_interval": 0, "log_interval": 3}, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (line,) = [line for line in lines if line["step"] == 6 and "seconds" in line]
    assert line["time/data"] * line["seconds"] > 3 * 0.14


def test_being_asked_to_stop_before_the_first_update_ends_at_once(tmp_path, tiny_config, monkeypatch):
    monkeypatch.setattr(loop, "open_mixture", lambda settings: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match="nothing was begun that had to be saved"):
        train(tiny_config, tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_a_run_with_nothing_to_validate_on_is_refused_at_its_start(tmp_path, tiny_config):
    config = {**tiny_config, "data": {**tiny_config["data"], "validation_fraction": 1e-9}}
    with pytest.raises(ValueError, match="validation must have at least one episode to look at, got none of metaworld_pick_place_v3"):
        train(config, tmp_path)
    assert not (tmp_path / "checkpoints").exists()
    compare_workdir(tmp_path, tiny_config)


def test_what_validation_breaks_is_saved_before(tmp_path, tiny_config, monkeypatch):
    """The run goes on past it, where it is started again."""

    def broken(*_, **__):
        raise OSError("a held-out shard cannot be read")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "make_validate", lambda *_: broken)
        with pytest.raises(OSError, match="held-out shard"):
            train(tiny_config, tmp_path)
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).steps == [10]
    assert int(train(tiny_config, tmp_path).step) == 20
    assert set(losses(tmp_path)) == set(range(1, 21))


@pytest.mark.parametrize("name", ["newest checkpoint", "datasets"])
def test_a_process_that_sees_another_thing_is_refused_before_it_begins(tmp_path, tiny_config, monkeypatch, name):
    """Of several, it would wait for ever in a collective that the others are not in, or mix rows."""
    said = []

    def check_same(what, text, remedy):
        said.append(what)
        if what == name:
            raise ValueError(f"{what} must be the same in all processes. {remedy}")

    monkeypatch.setattr(loop.distributed, "check_same", check_same)
    monkeypatch.setattr(loop, "init_state", None)
    with pytest.raises(ValueError, match=f"{name} must be the same"):
        train(tiny_config, tmp_path)
    assert said == ["newest checkpoint", "datasets"][: len(said)]
    assert not (tmp_path / "checkpoints").exists()


def test_an_interrupt_between_two_steps_saves_where_it_stands(tmp_path, tiny_config):
    def progress(steps, total, name):
        for step in steps:
            if step == 7:
                os.kill(os.getpid(), signal.SIGINT)
            yield step

    with pytest.raises(Interrupted, match="saved step 7 of 20"):
        train(tiny_config, tmp_path, progress)
    assert int(train(tiny_config, tmp_path).step) == 20
    assert set(losses(tmp_path)) == set(range(1, 21))


def test_a_batch_that_does_not_split_is_refused(tmp_path, tiny_config):
    with pytest.raises(ValueError, match="batch_size must be a multiple of devices x optimizer.accumulate_steps = 8 x 1, got 12"):
        train({**tiny_config, "batch_size": 12}, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": {"freeze": ["nothing/*"]}}, "optimizer.freeze must match parameters, got 'nothing/"),
        ({"optimizer": {"lora": ["*/bias"]}}, "optimizer.lora must match parameters"),
        ({"method": {"name": "diffusion", "num_levels": 4}, "sample_steps": 5}, "num_steps must lie in"),
    ],
)
def test_a_refused_start_leaves_the_workdir_to_its_correction(tmp_path, tiny_config, changes, message):
    merged = {key: {**tiny_config[key], **value} if key == "optimizer" else value for key, value in changes.items()}
    with pytest.raises(ValueError, match=message):
        train({**tiny_config, **merged}, tmp_path)
    compare_workdir(tmp_path, tiny_config)
    assert not (tmp_path / "config.json").exists()


def test_a_kill_while_lines_are_dropped_loses_none(tmp_path, monkeypatch):
    path, lines = tmp_path / "metrics.jsonl", '{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 2.0}\n'
    path.write_text(lines)
    monkeypatch.setattr(pathlib.Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        loop.MetricsLog(tmp_path, 1)
    assert path.read_text() == lines


def test_lines_after_the_checkpoint_and_torn_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 2.0}\n{"step": 3, "loss": 3.0}\n{"step": 4, "lo')
    with loop.MetricsLog(tmp_path, 2) as log:
        log.write(3, {"loss": 5.0})
    assert losses(tmp_path) == {1: 1.0, 2: 2.0, 3: 5.0}
