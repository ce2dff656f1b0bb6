"""The memory of a device that a program needs."""

from mae_jax.bench.buffers import read_buffers
from mae_jax.bench.hlo import parse
from tests.helpers import programs

PROGRAM = """\
ENTRY %main (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  %big.1 = f32[64,128]{1,0:T(8,128)} negate(%p), \
metadata={op_name="jit(step)/jvp(MAE)/encoder/block_0/mlp/fc1/add"}
  %small.1 = f32[8,128]{1,0:T(8,128)} negate(%p), metadata={op_name="jit(step)/jvp(MAE)/x/add"}
  ROOT %r = f32[8,128]{1,0:T(8,128)} negate(%p)
}
"""
BUFFERS = """\
BufferAssignment:
allocation 0: size 4096, parameter 0, shape |f32[8,128]| at ShapeIndex {}, maybe-live-out:
 value: <1 p @0> (size=4096,offset=0): f32[8,128]{1,0:T(8,128)}
allocation 1: size 1000, parameter 1, shape |u8[1000]| at ShapeIndex {}:
allocation 2: size 512, thread-local:
allocation 3: size 300, constant:
allocation 4: size 100, output shape is |(f32[8,128], f32[])|, maybe-live-out:
allocation 5: size 50, maybe-live-out:
allocation 6: size 40000, preallocated-temp:
 value: <2 big.1 @0> (size=32768,offset=512): f32[64,128]{1,0:T(8,128)}
 value: <3 small.1 @0> (size=4096,offset=512): f32[8,128]{1,0:T(8,128)}
 value: <4 pair{} @0> (size=512,offset=0): (f32[64,128]{1,0:T(8,128)}, u32[])
 value: <5 small.1 @0> (size=4096,offset=33280): f32[8,128]{1,0:T(8,128)}
allocation 7: size 99999, color 1, preallocated-temp:
 value: <6 big.1 @1> (size=32768,offset=0): f32[64,128]{1,0:T(8,128)S(1)}
"""


def test_allocations_by_hand():
    """Those on the chip and of single threads are none of the device's memory."""
    found = read_buffers(BUFFERS, parse(PROGRAM))
    assert found.arguments == 5096 and found.aliased == 4096 and found.outputs == 150
    assert found.temporaries == 40000 and found.constants == 300
    assert found.total == 5096 + 150 + 40000 + 300
    first, second = found.buffers
    assert (first.bytes, first.shape) == (32768, "f32[64,128]")
    assert first.modules == ("encoder/block_0/mlp/fc1",)  # what is small beside it is left out
    assert second.bytes == 4096 and len(read_buffers(BUFFERS, parse(PROGRAM), 1).buffers) == 1


def test_the_state_of_a_small_step_is_replicated_or_sharded():
    """Parameters and two moments; vectors fill whole tiles, and the batch is 1.5 kB an image."""
    totals = {}
    for name in ("v5e_data", "v5e_fsdp", "h100_fsdp"):
        program = parse(programs.read(f"{name}.hlo"))
        totals[name] = read_buffers(programs.read(f"{name}.buffers"), program)
    state = 3 * programs.FACTS["v5e_data"]["parameter_bytes"]
    assert 0 <= totals["v5e_data"].aliased - state < 0.01 * state
    assert 0 <= totals["v5e_fsdp"].aliased - state / 4 < 0.08 * state / 4
    assert 0 <= totals["h100_fsdp"].aliased - state / 4 < 0.002 * state / 4
    assert totals["v5e_data"].temporaries == 2524160
