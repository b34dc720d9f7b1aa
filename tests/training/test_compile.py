"""An update compiled ahead, for virtual devices here; TPU slices are compiled by `make pod-check`."""

import os

import jax
import pytest
from jax.experimental import topologies

from ebt_jax.config import load, plain
from ebt_jax.data.described import described_specs
from ebt_jax.data.mixture import open_mixture
from ebt_jax.training.collectives import count_collectives
from ebt_jax.training.compile import LIBTPU_ARGS, compile_step, topology_devices
from ebt_jax.training.settings import Settings

HLO = """HloModule m

%inner (x: f32[4]) -> f32[4] {
  %x = f32[4] parameter(0)
  ROOT %r = f32[4] all-reduce(%x), to_apply=%add
}

%body (t: f32[4]) -> f32[4] {
  %t = f32[4] parameter(0)
  %s = f32[4] all-gather-start(%t), dimensions={0}
  ROOT %f = f32[4] fusion(%t), kind=kLoop, calls=%inner
}

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %c = f32[] add(%a, %b)
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %p = f32[4] parameter(0)
  %w = f32[4] while(%p), condition=%add, body=%body
  ROOT %q = f32[4] all-reduce(%w), to_apply=%add
}
"""


def test_collectives_are_counted_and_those_of_loops_apart():
    assert count_collectives(HLO) == ({"all-reduce": 2, "all-gather": 1}, 2)


HIDDEN = """HloModule jit_train_step, is_scheduled=true

%fused_computation.1 (s: bf16[32]) -> (bf16[32], bf16[128], u32[]) {
  %s = bf16[32]{0} parameter(0)
  %g.1 = bf16[128]{0:S(1)} all-gather(%s), channel_id=1, frontend_attributes={chain_id="0"}
  ROOT %t.1 = (bf16[32], bf16[128], u32[]) tuple(%s, %g.1, %g.1)
}

%async_collective_fusion.2 (s: bf16[32], x: f32[4]) -> (f32[4], bf16[128]) {
  %s = bf16[32]{0} parameter(0)
  %x = f32[4] parameter(1)
  %g.2 = bf16[128]{0:S(1)} all-gather(%s), channel_id=1, frontend_attributes={chain_id="0"}
  ROOT %t.2 = (f32[4], bf16[128]) tuple(%x, %g.2)
}

%fused_computation.3 (s: bf16[32]) -> bf16[128] {
  %s = bf16[32]{0} parameter(0)
  ROOT %g.3 = bf16[128]{0:S(1)} all-gather(%s), channel_id=1, frontend_attributes={chain_id="0"}
}

%body (t: (f32[4], bf16[32])) -> (f32[4], bf16[32]) {
  %t = (f32[4], bf16[32]) parameter(0)
  %f.2 = (f32[4], bf16[128]) fusion(%t), kind=kCustom, calls=%async_collective_fusion.2
  %f.3 = (f32[4], bf16[128]) fusion(%f.2), kind=kCustom, calls=%async_collective_fusion.2
  ROOT %r = (f32[4], bf16[32]) tuple(%f.3, %t)
}

%condition (t: (f32[4], bf16[32])) -> pred[] {
  ROOT %p = pred[] parameter(0)
}

ENTRY %main.4_spmd (s: bf16[32]) -> bf16[128] {
  %s = bf16[32]{0} parameter(0)
  %async-collective-start = (bf16[32], bf16[128], u32[]) fusion(%s), kind=kLoop, calls=%fused_computation.1
  %w = (f32[4], bf16[32]) while(%async-collective-start), condition=%condition, body=%body
  ROOT %async-collective-done = bf16[128]{0} fusion(%w), kind=kLoop, calls=%fused_computation.3
}
"""


def test_an_exchange_that_a_loop_only_hides_is_one_and_not_repeated():
    """The TPU compiler's way: begun before the loop, done after it, with pieces in the loop's fusions that share its chain_id."""
    assert count_collectives(HIDDEN) == ({"all-gather": 1}, 0)


def test_a_chain_that_begins_and_ends_within_a_loop_is_repeated():
    body = "calls=%async_collective_fusion.2\n  ROOT"
    inside = HIDDEN.replace(body, "calls=%fused_computation.1\n  %d = bf16[128] fusion(%f.3), calls=%fused_computation.3\n  ROOT")
    assert inside != HIDDEN
    assert count_collectives(inside) == ({"all-gather": 1}, 1)


@pytest.mark.slow
def test_an_update_of_eight_devices_exchanges_outside_its_loops(tiny_config):
    settings = Settings.from_dict({**tiny_config, "method": {"name": "regression"}})
    compiled = compile_step(settings, open_mixture(settings.data).specs, "8", jax.devices())
    assert (compiled.devices, compiled.mesh, compiled.batch_size) == (8, {"data": 8, "fsdp": 1}, 16)
    assert compiled.collectives_in_loop == 0
    assert set(compiled.collectives) == {"all-reduce"}
    state = 4 * 4 * compiled.parameters  # parameters, average, two moments
    assert state < compiled.peak_bytes < 20 * state
    half = compile_step(settings, open_mixture(settings.data).specs, "4", jax.devices()[:4])
    assert half.flops == 2 * compiled.flops  # twice the rows on each


def test_a_batch_that_does_not_split_is_refused(tiny_config):
    settings = Settings.from_dict({**tiny_config, "batch_size": 12})
    with pytest.raises(ValueError, match="batch_size must be a multiple of devices"):
        compile_step(settings, open_mixture(settings.data).specs, "8", jax.devices())


def test_a_topology_nobody_makes_is_refused():
    with pytest.raises(ValueError, match=r"topology must be a TPU slice like v5e:16x16.*got 'v5e:3x'.*\[tpu\] extra"):
        topology_devices("v5e:3x")


def test_a_tpu_compiler_that_is_taken_is_no_fault_of_the_topology(monkeypatch):
    def taken(**_):
        raise jax.errors.JaxRuntimeError("ABORTED: Internal error when accessing libtpu multi-process lockfile.")

    monkeypatch.setattr(topologies, "get_topology_desc", taken)
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--mine=1")
    with pytest.raises(RuntimeError, match="one process at a time: wait"):
        topology_devices("v5e:2x2")
    assert os.environ["LIBTPU_INIT_ARGS"] == f"{LIBTPU_ARGS} --mine=1"  # the user's own are last, and win


def test_the_launchers_give_the_compiler_the_same_threads(request):
    for path in (request.config.rootpath / "launch/xla_flags").glob("tpu_*.env"):
        assert LIBTPU_ARGS in path.read_text().split(), path


@pytest.mark.parametrize(
    ("config", "data", "sizes"),
    [
        ("oxe.py", {}, (7, 8192)),
        ("oxe.py", {"language": "embedding"}, (7, 512)),
        ("oxe.py", {"mixture": "droid"}, (7, 8192)),
        ("pusht.py", {}, (2, 0)),
    ],
)
def test_data_that_is_not_here_is_described(config, data, sizes, request):
    values = plain(load(request.config.rootpath / "configs" / config))
    specs = described_specs(Settings.from_dict({**values, "data": {**values["data"], "data_dir": "(none)", **data}}).data)
    assert (len(specs.action.dimensions), specs.observation.language.size) == sizes
    assert specs.action.horizon == values["data"]["action_horizon"]


def test_data_that_nobody_describes_is_refused(tiny_config):
    settings = Settings.from_dict({**tiny_config, "data": {**tiny_config["data"], "mixture": "mine"}})
    with pytest.raises(ValueError, match=r"where data.data_dir is not given, got \['mine'\]. Give the folder."):
        described_specs(settings.data)
