"""The fused kernels through the compilers of TPUs (needs libtpu) and NVIDIA GPUs (needs JAX's
plugin for CUDA), without either.
"""

import subprocess
import sys

import pytest

from tests.helpers import jobs
from tests.helpers.compilers import needs_cuda, needs_libtpu

SHAPES = ((50, 50, 64), (65, 65, 80), (147, 197, 32), (197, 197, 32), (257, 257, 32))
"""Queries, keys and channels of a head: of encoders and decoders, with and without a mask."""

CODE = """
import sys
import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec as P
from mae_jax.engine.mesh import make_mesh, on_mesh
from mae_jax.ops.attention import attention

platform, options = sys.argv[1], {}
if platform == "tpu":
    kind = dict(topology_name=sys.argv[2])
    if sys.argv[2].startswith("v4"):
        kind["chip_config_name"] = "megacore"  # one device a chip
else:
    from jax._src.cudnn import fused_attention_stablehlo as fused
    fused.check_cudnn_version = lambda: 91000  # asked of the device, which is not here
    target = open("mae_jax/bench/targets/h100.txtpb").read()
    kind = dict(topology_name="h100", target_config=target, topology="1x1x2")
    options = {"xla_gpu_enable_triton_gemm": False}
mesh = make_mesh(devices=list(topologies.get_topology_desc(platform=platform, **kind).devices))
rows = NamedSharding(mesh, P(("data", "fsdp")))
for queries, keys, size in SHAPES:
    shape = lambda length: jax.ShapeDtypeStruct(
        (2 * mesh.size, length, 8, size), jnp.bfloat16, sharding=rows
    )
    total = on_mesh(mesh)(lambda *args: attention(*args).astype(jnp.float32).sum())
    step = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
    program = step.lower(shape(queries), shape(keys), shape(keys)).compile(options).as_text()
    print([line for line in CALLS[platform] if line not in program])
"""
CALLS = {
    "tpu": ["tpu_custom_call"],
    "cuda": ["__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"],
}


def compile_kernels(platform, topology=""):
    code = f"SHAPES = {SHAPES}\nCALLS = {CALLS}\n{CODE}"
    fast = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS", "JAX_COMPILATION_CACHE_DIR")
    env = {key: value for key, value in jobs.environment().items() if key not in fast}
    done = subprocess.run(
        [sys.executable, "-c", code, platform, topology],
        cwd=jobs.ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=jobs.DEADLINE,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.splitlines()[-len(SHAPES) :] == ["[]"] * len(SHAPES)


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize("topology", ["v4:2x2x1", "v5e:2x2", "v6e:2x2"])
def test_kernels_for_tpus_compile(topology):
    compile_kernels("tpu", topology)


@pytest.mark.slow
@needs_cuda
def test_kernels_for_gpus_compile():
    compile_kernels("cuda")
