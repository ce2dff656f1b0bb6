"""Texts of programs as instructions, arrays and loops."""

import pytest

from mae_jax.bench.hlo import arrays, instruction, parse


@pytest.mark.parametrize(
    "shape, space, padded",
    [
        ("f32[3,5]{1,0}", 0, 60),
        ("f32[256,16,197,197]{3,2,1,0:T(8,128)}", 0, 256 * 16 * 200 * 256 * 4),
        ("f32[256,16,197,197]{1,3,2,0:T(8,128)S(1)}", 1, 256 * 197 * 200 * 128 * 4),
        ("bf16[3,200]{1,0:T(8,128)(2,1)}", 0, 8 * 256 * 2),
        ("bf16[1536]{0:T(1024)(128)(2,1)S(1)}", 1, 2048 * 2),
        ("u32[]{:S(2)}", 2, 4),
        ("pred[7]", 0, 7),
    ],
)
def test_arrays_occupy_whole_tiles(shape, space, padded):
    (array,) = arrays(shape)
    assert array.space == space and array.padded == padded


def test_an_instruction():
    one = instruction(
        "  ROOT %a.1 = ((f32[4]{0:T(128)}), /*index=1*/u32[]{:S(2)}) async-start(%p.2, %q), "
        'calls=%run.1, metadata={op_name="jit(step)/jvp(MAE)/encoder/embed/add" stack_frame_id=3}'
    )
    assert (one.name, one.opcode, one.operands, one.root) == ("a.1", "async-start", ("p.2", "q"), 1)
    assert [array.dims for array in one.result] == [(4,), ()]
    assert one.callees == [("calls", "run.1")]
    assert one.op_name == "jit(step)/jvp(MAE)/encoder/embed/add" and one.channel is None
    assert instruction("}") is None and instruction("FileNames") is None


LOOP = """\
%body (x: (f32[4], u32[])) -> (f32[4], u32[]) {
  %x = (f32[4], u32[]) parameter(0)
  %i = u32[] get-tuple-element(%x), index=1
  %two = u32[] constant(2)
  %next = u32[] add(%i, %two)
  ROOT %t = (f32[4], u32[]) tuple(%y, %next)
}

%condition (x: (f32[4], u32[])) -> pred[] {
  %x = (f32[4], u32[]) parameter(0)
  %i = u32[] get-tuple-element(%x), index=1
  %bound = u32[] constant(9)
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %p = f32[4] parameter(0)
  %w = (f32[4], u32[]) while(%init), condition=%condition, body=%body
  ROOT %r = f32[4] get-tuple-element(%w), index=0
}
"""


def test_loops_run_as_often_as_their_counter_allows():
    """From 0 to 9 in steps of 2; the compiler's note counts where there is one."""
    assert parse(LOOP).times() == {"body": 5, "condition": 1, "main": 1}
    noted = LOOP.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"3"}}')
    assert parse(noted).times()["body"] == 3
    unknown = LOOP.replace("direction=LT", "direction=NE")
    assert parse(unknown).times()["body"] == 1
    found = [parse(text).unknown_loops() for text in (LOOP, noted, unknown)]
    assert found == [0, 0, 1]
