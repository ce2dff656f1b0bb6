"""Bytes between a chip and its main memory, against sums done by hand."""

import pytest

from mae_jax.bench.hlo import parse
from mae_jax.bench.modules import module_of, part_of_name
from mae_jax.bench.traffic import traffic
from tests.helpers import programs

PROGRAM = """\
%slicing (a: f32[16,128], i: s32[]) -> f32[8,128] {
  %a = f32[16,128]{1,0:T(8,128)} parameter(0)
  %i = s32[] parameter(1)
  ROOT %s = f32[8,128]{1,0:T(8,128)} dynamic-slice(%a, %i), dynamic_slice_sizes={8,128}
}

%updating (a: f32[16,128], b: f32[8,128]) -> f32[16,128] {
  %a = f32[16,128]{1,0:T(8,128)} parameter(0)
  %b = f32[8,128]{1,0:T(8,128)} parameter(1)
  ROOT %u = f32[16,128]{1,0:T(8,128)} dynamic-update-slice(%a, %b, %i)
}

%slice_of (a: f32[16,128]) -> f32[8,128] {
  %a = f32[16,128]{1,0:T(8,128)} parameter(0)
  ROOT %s = f32[8,128]{1,0:T(8,128)S(1)} slice(%a), slice={[0:8], [0:128]}
}

%yes (x: f32[16,128]) -> f32[16,128] {
  %x = f32[16,128]{1,0:T(8,128)} parameter(0)
  ROOT %y = f32[16,128]{1,0:T(8,128)} add(%x, %x), metadata={op_name="jit(step)/cond/branch_1/add"}
}

%no (x: f32[16,128]) -> f32[16,128] {
  ROOT %x = f32[16,128]{1,0:T(8,128)} parameter(0)
}

ENTRY %main (p: f32[16,128]) -> f32[16,128] {
  %p = f32[16,128]{1,0:T(8,128)} parameter(0)
  %start = ((f32[16,128]{1,0:T(8,128)}), f32[8,128]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) \
async-start(%p), calls=%slice_of
  %v = f32[8,128]{1,0:T(8,128)S(1)} async-done(%start)
  %norm = f32[8,128]{1,0:T(8,128)} multiply(%v, %v), \
metadata={op_name="jit(step)/jvp(MAE)/encoder/norm/mul"}
  %part = f32[8,128]{1,0:T(8,128)} fusion(%p, %i), kind=kLoop, calls=%slicing, \
metadata={op_name="jit(step)/jvp(MAE)/encoder/block_0/mlp/fc1/dot_general"}
  %new = f32[16,128]{1,0:T(8,128)} fusion(%p, %part), kind=kLoop, calls=%updating, \
metadata={op_name="jit(step)/jvp(MAE)/decoder/block_0/attention/qkv/dot_general"}
  %out = f32[16,128]{1,0:T(8,128)} custom-call(%new), custom_call_target="tpu_custom_call", \
metadata={op_name="jit(step)/jvp(MAE)/decoder/block_0/attention/pallas_call"}
  %sum = f32[16,128]{1,0:T(8,128)} all-reduce(%out), channel_id=1, to_apply=%add
  %cat = f32[16,128]{1,0:T(8,128)} custom-call(%sum), custom_call_target="ConcatBitcast"
  ROOT %c = f32[16,128]{1,0:T(8,128)} conditional(%which, %cat, %cat), \
branch_computations={%no, %yes}
}
"""
HALF, WHOLE = 8 * 128 * 4, 16 * 128 * 4


def test_every_instruction_by_hand():
    found = traffic(parse(PROGRAM))
    assert found.parts == {
        "copies": HALF,  # a slice into the chip
        "norms": HALF,  # of what is on the chip already
        "encoder dense": 2 * HALF,  # half of the operand
        "decoder dense": 2 * HALF,  # the update is read, and written
        "decoder attention": 2 * WHOLE,  # a kernel
        "collectives": 2 * WHOLE,
        "optimizer": 2 * WHOLE + WHOLE,  # both operands of the larger branch
    }
    assert found.total == sum(found.parts.values())
    assert found.modules["decoder/block_0/attention"] == 2 * WHOLE


LOOP = """\
%body (x: (f32[16,128], u32[])) -> (f32[16,128], u32[]) {
  %x = (f32[16,128]{1,0:T(8,128)}, u32[]{:S(2)}) parameter(0)
  %a = f32[16,128]{1,0:T(8,128)} get-tuple-element(%x), index=0
  %b = f32[16,128]{1,0:T(8,128)} negate(%a), metadata={op_name="jit(step)/while/body/mul"}
  ROOT %t = (f32[16,128]{1,0:T(8,128)}, u32[]{:S(2)}) tuple(%b, %i)
}

ENTRY %main (p: f32[16,128]) -> f32[16,128] {
  %w = (f32[16,128]{1,0:T(8,128)}, u32[]{:S(2)}) while(%t), condition=%c, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  ROOT %r = f32[16,128]{1,0:T(8,128)} get-tuple-element(%w), index=0
}
"""


def test_loops_move_as_often_as_they_run():
    assert traffic(parse(LOOP)).total == 3 * 2 * WHOLE


@pytest.mark.parametrize(
    "op_name, module, part",
    [
        ("jit(step)/jvp(MAE)/decoder/block_0/attention/bhts,bhsd->bhtd/dot_general", "", ""),
        ("jit(step)/transpose(jvp(MAE))/encoder/block_1/attention/qkv/dot_general", "", "dense"),
        ("jit(step)/jvp(MAE)/encoder/block_1/mlp/fc1/add;jit(step)/x/y", "", "dense"),
        ("jit(step)/jvp(MAE)/encoder/block_0/norm1/rsqrt", "", "norms"),
        ("jit(step)/while/body/closed_call/jvp(MAE)/encoder/jit(_take)/gather", "enc", "pixels"),
        ("jit(step)/jvp(jit(argsort))/sort", "", "pixels"),
        ("jit(step)/cond/branch_1_fun/add", "", "optimizer"),
        ("", "", "other"),
        (
            "jit(step)/jvp(MAE)/checkpoint/rematted_computation/decoder/block_3/attention/mul",
            "decoder/block_3/attention",
            "decoder attention",
        ),
        ("jit(step)/jvp(MAE)/decoder/block_0/attention/kernel/pallas_call", "", "attention"),
    ],
)
def test_parts_by_name(op_name, module, part):
    assert part in part_of_name(op_name)
    assert module in module_of(op_name)


def test_modules_are_paths_without_wrappers_and_primitives():
    name = "jit(step)/jvp(MAE)/decoder/block_0/attention/bhts,bhsd->bhtd/dot_general"
    assert module_of(name) == "decoder/block_0/attention"
    assert part_of_name(name) == "decoder attention"


def test_a_small_step_of_a_tpu_moves_its_state_and_little_else():
    """All activations fit on the chip; parameters and two moments, 5.1 MB, come and go."""
    found = traffic(parse(programs.read("v5e_data.hlo")))
    state = 3 * programs.FACTS["v5e_data"]["parameter_bytes"]
    assert found.total == pytest.approx(2 * state, rel=0.02)
    assert found.parts["copies"] > 0.95 * found.total


def test_a_gpu_keeps_nothing_on_the_chip():
    found = traffic(parse(programs.read("h100_fsdp.hlo")))
    assert found.parts["encoder attention"] > 1e5 and found.parts["decoder attention"] > 1e5
    assert found.total == pytest.approx(11.6e6, rel=0.01)
