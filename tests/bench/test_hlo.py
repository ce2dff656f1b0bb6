"""The collectives of compiled steps (2 fake devices), and of programs written by hand."""

import jax
import jax.numpy as jnp
import pytest

from mae_jax.bench.hlo import collectives, totals
from mae_jax.bench.setup import make_setup
from tests.helpers import tiny


def counted(**changes):
    """Collectives of the step of `tiny`, and the bytes of its parameters."""
    config = tiny.get_config()
    config.mesh.update(changes.get("mesh", dict(data=2, fsdp=1)))
    config.accumulate = changes.get("accumulate", 1)
    setup = make_setup(config)
    compiled = setup.step().lower(setup.like, setup.batch_like()).compile()
    size = sum(4 * leaf.size for leaf in jax.tree.leaves(setup.like.params))
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


def test_a_gather_that_travels_is_found(monkeypatch):
    """Patches taken by a list of rows and places: the partitioner then sums up the patches of all
    images on each device.
    """

    def take(x, indices, axis, mode=None):
        return x[jnp.arange(len(x))[:, None], indices[:, :, 0]]

    monkeypatch.setattr(jnp, "take_along_axis", take)
    moved = [one for one in counted()[0] if "gather" in one.op_name]
    assert (8, 1, 48) in [shape for one in moved for shape in one.shapes]


def test_sharded_parameters_are_gathered():
    found, size = counted(mesh=dict(data=1, fsdp=2))
    gathered = sum(one.payload for one in found if one.kind == "all-gather")
    assert gathered > 0.5 * size
    assert max(one.payload for one in found if one.kind == "all-gather") < size / 2


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
    assert totals(found)["reduce-scatter"] == dict(count=3, payload=144, moved=432)
    assert "jit(step)/add" in {one.op_name for one in found}
