"""The fused kernels through the compilers of TPUs (needs libtpu) and NVIDIA GPUs (needs JAX's
plugin for CUDA), without either.
"""

import pytest

from tests.helpers.compilers import compiling, needs_cuda, needs_libtpu

SHAPES = ((50, 50, 64), (65, 65, 80), (147, 197, 32), (197, 197, 32), (257, 257, 32))
"""Queries, keys and channels of a head: of encoders and decoders, with and without a mask."""

CODE = """
import sys
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from mae_jax.bench.compile_child import GPU_OPTIONS, describe_cudnn, topology_devices
from mae_jax.bench.machines import parse_topology
from mae_jax.engine.mesh import make_mesh, on_mesh
from mae_jax.ops.attention import attention

describe_cudnn()
topology = parse_topology(sys.argv[1])
options = GPU_OPTIONS if topology.platform == "cuda" else {}
mesh = make_mesh(devices=topology_devices(topology.arguments()))
rows = NamedSharding(mesh, P(("data", "fsdp")))
for queries, keys, size in SHAPES:
    shape = lambda length: jax.ShapeDtypeStruct(
        (2 * mesh.size, length, 8, size), jnp.bfloat16, sharding=rows
    )
    total = on_mesh(mesh)(lambda *args: attention(*args).astype(jnp.float32).sum())
    step = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
    program = step.lower(shape(queries), shape(keys), shape(keys)).compile(options).as_text()
    print([line for line in CALLS if line not in program])
"""


def compile_kernels(topology, *calls):
    lines = compiling("-c", f"SHAPES, CALLS = {SHAPES}, {calls}\n{CODE}", topology)
    assert lines[-len(SHAPES) :] == ["[]"] * len(SHAPES)


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize("topology", ["v4:2x2x1", "v5e:2x2", "v6e:2x2"])
def test_kernels_for_tpus_compile(topology):
    compile_kernels(topology, "tpu_custom_call")


@pytest.mark.slow
@needs_cuda
def test_kernels_for_gpus_compile():
    compile_kernels("h100:2", "__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward")
