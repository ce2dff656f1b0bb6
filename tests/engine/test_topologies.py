"""The step compiled for slices of TPUs, by the compiler of TPUs, without any (needs libtpu)."""

import json

import pytest

from tests.helpers.compilers import compiling, needs_libtpu

pytestmark = [pytest.mark.slow, needs_libtpu]


def compiled(name, slices, *changes):
    """What `tests.helpers.topology` prints."""
    return json.loads(compiling("-m", "tests.helpers.topology", name, str(slices), *changes)[-1])


def test_a_host_of_a_v5e():
    found = compiled("v5e:2x2", 1)
    assert found["mesh"] == {"data": 4, "fsdp": 1} and found["bytes"] > 0
    assert set(found["collectives"]) == {"all-reduce"}


def test_hybrid_on_a_v6e():
    """A group of 8 takes half of a grid of 4 x 4."""
    found = compiled("v6e:4x4", 1, "mesh.fsdp=8")
    assert found["mesh"] == {"data": 2, "fsdp": 8}
    assert found["collectives"]["all-gather"] > 0


@pytest.mark.parametrize("fsdp", [1, 8])
def test_two_slices(fsdp):
    found = compiled("v5e:2x4", 2, f"mesh.fsdp={fsdp}")
    assert found["mesh"] == {"data": 16 // fsdp, "fsdp": fsdp}
    # Gradients are reduced within a slice, between slices, and put together in each.
    assert found["collectives"]["all-reduce"] > 0 and found["collectives"]["all-gather"] > 0


def test_fsdp_over_64_chips_gathers_parameters():
    """Not by all-reduces, which the compiler prefers: `mae_jax.engine.compiler`."""
    whole = ("v5e:8x8", 1, "mesh.data=1", "mesh.fsdp=-1")
    option = "xla_tpu_prefer_async_allgather_to_allreduce"
    found, left_out = compiled(*whole), compiled(*whole, f"compiler.tpu={option}=default")
    assert found["options"] == {option: "True"} and left_out["options"] == {}
    assert found["collectives"]["all-gather"] > 10
    assert "all-gather" not in left_out["collectives"], "the option is not needed any more"
