"""The collectives of compiled steps (2 fake devices), and of programs written by hand."""

import jax
import jax.numpy as jnp
import pytest

from mae_jax.bench.collectives import collectives, totals
from mae_jax.bench.setup import make_setup
from tests.helpers import programs, tiny


def counted(**changes):
    """Collectives of the step of `tiny`, and the bytes of its parameters."""
    config = tiny.get_config()
    config.mesh.update(changes.get("mesh", dict(data=2, fsdp=1)))
    config.accumulate = changes.get("accumulate", 1)
    setup = make_setup(config)
    compiled = setup.step().lower(setup.abstract_state, setup.abstract_batch()).compile()
    size = sum(4 * leaf.size for leaf in jax.tree.leaves(setup.abstract_state.params))
    return collectives(compiled.as_text(), setup.mesh.size), size


@pytest.fixture(scope="module")
def whole():
    """The same, of batches split over two devices."""
    return counted()


def test_data_parallel_steps_reduce_gradients_and_nothing_else(whole):
    """No parameters are gathered, and masks need no communication."""
    found, size = whole
    assert {one.kind for one in found} == {"all-reduce"} and {one.group for one in found} == {2}
    assert not [one for one in found if "gather" in one.op_name or "take" in one.op_name]
    # Each gradient once, and a few scalars: the loss is a sum over masked patches.
    scalars = sum(4 for one in found for shape in one.shapes if not shape)
    payload = totals(found)["all-reduce"]["payload"]
    assert payload == size + scalars and scalars <= 64
    assert totals(found)["all-reduce"]["moved"] == payload  # 2 (n - 1) / n of it


@pytest.mark.thorough
def test_a_gather_that_travels_is_found(monkeypatch):
    """Patches taken by a list of rows and places: the partitioner then sums up the patches of all
    images on each device.
    """

    def take(x, indices, axis, mode=None):
        return x[jnp.arange(len(x))[:, None], indices[:, :, 0]]

    monkeypatch.setattr(jnp, "take_along_axis", take)
    moved = [one for one in counted()[0] if "gather" in one.op_name]
    assert (8, 1, 48) in [shape for one in moved for shape in one.shapes]


@pytest.mark.thorough
def test_sharded_parameters_are_gathered():
    found, size = counted(mesh=dict(data=1, fsdp=2))
    gathered = sum(one.payload for one in found if one.kind == "all-gather")
    assert gathered > 0.5 * size
    assert max(one.payload for one in found if one.kind == "all-gather") < size / 2


@pytest.mark.thorough
def test_parts_of_a_batch_reduce_each_on_their_own(whole):
    found, _ = whole
    parts, _ = counted(accumulate=2)
    assert {one.times for one in found} == {1} and {one.times for one in parts} >= {2}
    payload = totals(parts)["all-reduce"]["payload"]
    assert payload == pytest.approx(2 * totals(found)["all-reduce"]["payload"], rel=0.01)


PROGRAM = """\
HloModule jit_step, is_scheduled=true

%add.1 (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%unused (a: f32[9]) -> f32[9] {
  %a.9 = f32[9]{0} parameter(0)
  ROOT %never = f32[9]{0} all-reduce(%a.9), replica_groups={}, to_apply=%add.1
}

%body.1 (x: (s32[], bf16[4,6])) -> (s32[], bf16[4,6]) {
  %x = (s32[], bf16[4,6]{1,0}) parameter(0)
  %scattered = bf16[4,6]{1,0} reduce-scatter(%y), replica_groups=[2,4]<=[8], to_apply=%add.1
  ROOT %t = (s32[], bf16[4,6]{1,0}) tuple(%i, %scattered)
}

ENTRY %main.7 (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %r = (f32[8]{0}, pred[]) all-reduce(%p, %q), replica_groups={{0,1,2,3},{4,5,6,7}}, \
to_apply=%add.1, metadata={op_name="jit(step)/add" stack_frame_id=3}
  %g = (f32[8]{0}, f32[64]{0:T(1024)}) all-gather-start(%p), replica_groups={}, dimensions={0}
  %h = f32[64]{0:T(1024)} all-gather-done(%g)
  %c = (u8[5]{0}, u8[5]{0}, u32[], u32[]) collective-permute-start(%z), source_target_pairs={{0,1}}
  %m = f32[16]{0} all-reduce(%p), \
replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b':(1)2}, to_apply=%add.1
  %w = (s32[], bf16[4,6]{1,0}) while(%x0), condition=%cond.1, body=%body.1, \
backend_config={"known_trip_count":{"n":"3"}}
  ROOT %o = f32[8]{0} copy(%p)
}
"""


def test_every_way_in_which_programs_write_collectives():
    found = collectives(PROGRAM, 8)
    seen = [(one.kind, one.payload, one.group, one.times) for one in found]
    assert sorted(seen) == [
        ("all-gather", 256, 8, 1),
        ("all-reduce", 33, 4, 1),
        ("all-reduce", 64, 2, 1),
        ("collective-permute", 5, 8, 1),
        ("reduce-scatter", 48, 4, 3),
    ]
    moved = {(one.kind, one.payload): one.moved for one in found}
    assert moved["all-gather", 256] == 224 and moved["all-reduce", 33] == 2 * 33 * 3 / 4
    assert moved["reduce-scatter", 48] == 144 and moved["collective-permute", 5] == 5
    assert totals(found)["reduce-scatter"] == dict(count=3, asynchronous=0, payload=144, moved=432)
    assert "jit(step)/add" in {one.op_name for one in found}


TPU = """\
%starting (a: bf16[4,6]) -> bf16[16,6] {
  %a = bf16[4,6]{1,0:T(8,128)(2,1)} parameter(0)
  %g.1 = bf16[16,6]{1,0:T(8,128)(2,1)} all-gather(%a), channel_id=11, replica_groups={{0,1,2,3}}
  ROOT %s = (bf16[16,6]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) custom-call(%g.1), \
custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.1 (a: bf16[4,6]) -> bf16[16,6] {
  %a = bf16[4,6]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %g.2 = bf16[16,6]{1,0:T(8,128)(2,1)} all-gather(%a), channel_id=11, \
replica_groups={{0,1,2,3}}
}

%all-reduce-scatter (input: bf16[8,5]) -> bf16[2,5] {
  %input = bf16[8,5]{1,0:T(8,128)(2,1)} parameter(0)
  %r.1 = bf16[8,5]{1,0:T(8,128)(2,1)} all-reduce(%input), channel_id=12, \
replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %part = bf16[2,5]{1,0:T(8,128)(2,1)} dynamic-slice(%r.1, %i), dynamic_slice_sizes={2,5}
}

ENTRY %main (p: bf16[4,6]) -> bf16[16,6] {
  %p = bf16[4,6]{1,0:T(8,128)(2,1)} parameter(0)
  %f.1 = (bf16[16,6], u32[]{:S(2)}) fusion(%p), kind=kCustom, calls=%starting
  %f.2 = bf16[16,6] fusion(%p), kind=kOutput, calls=%async_collective_fusion.1
  %f.3 = bf16[2,5] fusion(%p), kind=kCustom, calls=%all-reduce-scatter, \
metadata={op_name="jit(step)/transpose(jvp(MAE))/encoder/embed/dot_general"}
  %zeros = bf16[16,6] broadcast(%c), dimensions={}
  %shard = bf16[16,6] dynamic-update-slice(%zeros, %p, %i)
  %copied = bf16[16,6] copy(%shard)
  %away = (bf16[3,6]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}, token[]) send(%p, %after), channel_id=14
  ROOT %r.2 = (bf16[16,6], f32[7]) all-reduce(%copied, %sums), channel_id=13, \
replica_groups={{0,1,2,3}}, to_apply=%add
}
"""


def test_what_programs_of_tpus_repeat_counts_once():
    found = {one.kind: one for one in collectives(TPU, 4)}
    assert len(found) == 4
    gather, scatter, reduce, send = (
        found[kind] for kind in ("all-gather", "reduce-scatter", "all-reduce", "send")
    )
    assert gather.payload == 16 * 6 * 2 and gather.times == 1 and gather.asynchronous
    assert scatter.payload == 2 * 5 * 2 and scatter.moved == 3 * 20 and not scatter.asynchronous
    assert scatter.op_name.endswith("encoder/embed/dot_general")
    assert reduce.payload == 16 * 6 * 2 + 7 * 4 and reduce.gathers == 16 * 6 * 2
    assert send.payload == send.moved == 3 * 6 * 2 and send.asynchronous  # to another slice
    assert totals(collectives(TPU, 4))["all-gather"]["asynchronous"] == 1


def test_a_tpu_program_of_a_step_reduces_each_gradient_once():
    """bfloat16 but for those of norms, 1536 numbers, which are float32 as the loss is."""
    found = collectives(programs.read("v5e_data.hlo"), 4)
    (row,) = totals(found).values()
    parameters = programs.FACTS["v5e_data"]["parameter_bytes"] // 4
    assert row["payload"] == 2 * (parameters - 1536) + 4 * 1536 + 4
    assert row["count"] == 2 and row["asynchronous"] == 0
    assert row["moved"] == row["payload"] * 2 * 3 / 4


def test_a_tpu_program_of_sharded_parameters_gathers_them_meanwhile():
    """Each channel is in several fusions."""
    text = programs.read("v5e_fsdp.hlo")
    found = collectives(text, 4)
    row = totals(found)["all-gather"]
    assert row["count"] == 25 and row["asynchronous"] == 14
    assert text.count(" all-gather(") == 71
    assert {one.times for one in found} == {1}
    assert totals(found)["reduce-scatter"] == dict(
        count=2, asynchronous=0, payload=16384, moved=3 * 16384
    )


def test_a_gpu_program_communicates_while_it_computes():
    found = totals(collectives(programs.read("h100_fsdp.hlo"), 4))
    assert all(row["count"] == row["asynchronous"] for row in found.values())
    assert found["all-gather"]["count"] == 12 and found["reduce-scatter"]["count"] == 10
