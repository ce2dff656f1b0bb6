"""The process in which `bench compile` compiles a step for devices that are not present.

Reads JSON from standard input: config, image size, topology, dump folder, and `full`. Writes into
the folder: `facts.json` before it compiles, and with `full` the text of the program. Exit codes: 2
after a user error, with a line on standard output; 3 if the program does not fit in memory.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from mae_jax.errors import UserError

FACTS, PROGRAM = "facts.json", "program.txt"
OUT_OF_MEMORY = 3
"""Exit code: the program does not fit in the memory of a device."""
STEP = "jit_step"
"""XLA's name of the module of the jitted function `step`."""
CUDNN = 91000
"""cuDNN 9.10, as in the descriptions of GPUs in `targets/`."""
GPU_OPTIONS = {"xla_gpu_enable_triton_gemm": "False"}
"""Triton's kernels are chosen by timing on a device, and there is none."""


def environment(folder: Path) -> dict[str, str]:
    """Environment of the child: no devices, and XLA's dump in a folder."""
    flags = (
        os.environ.get("XLA_FLAGS", ""),
        f"--xla_dump_to={folder}",
        "--xla_dump_hlo_as_text",
        f"--xla_dump_hlo_module_re={STEP}",
    )
    return os.environ | dict(
        XLA_FLAGS=" ".join(flags),
        JAX_PLATFORMS="cpu",
        JAX_DISABLE_MOST_OPTIMIZATIONS="false",
        JAX_ENABLE_COMPILATION_CACHE="false",  # cached programs are not dumped
        TPU_SKIP_MDS_QUERY="1",
        TPU_WORKER_HOSTNAMES="localhost",
        TPU_ACCELERATOR_TYPE="v5litepod-4",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
        TF_CPP_MIN_LOG_LEVEL="2",
    )


def main() -> None:
    """Compiles the step described on standard input."""
    task = json.load(sys.stdin)
    folder = Path(task["folder"])
    try:
        lowered, facts = lower(task)
    except UserError as error:
        print(" ".join(str(error).split()))
        sys.exit(2)
    (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")
    try:
        compiled = lowered.compile(compiler_options=facts["compiler_options"])
    except Exception as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(" ".join(str(error).split()))
        sys.exit(OUT_OF_MEMORY)
    if task["full"]:
        (folder / PROGRAM).write_text(compiled.as_text(), encoding="utf-8")


def lower(task: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The step of a config, lowered for a topology, and facts about it for the report."""
    import jax

    from mae_jax.bench.flops import count
    from mae_jax.bench.setup import make_setup
    from mae_jax.config import from_json
    from mae_jax.ops.attention import record_kinds

    devices = topology_devices(task["topology"])
    if devices[0].platform == "gpu":
        describe_cudnn()
    setup = make_setup(from_json(task["config"]), task["image_size"], devices=devices)
    counted = count(setup.method, setup.shape)
    leaves = jax.tree.leaves(setup.abstract_state.params)
    with record_kinds() as kinds:
        lowered = setup.step().lower(setup.abstract_state, setup.abstract_batch())
    facts = dict(
        device=devices[0].device_kind,
        devices=setup.mesh.size,
        mesh=dict(setup.mesh.shape),
        batch_size=setup.batch_size,
        accumulate=setup.microbatches,
        image_shape=setup.shape and list(setup.shape),
        dtype=setup.dtype,
        parameter_bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
        flops_per_image=sum(counted.train.values()) if counted else None,
        attention=list(kinds),
        compiler_options=options_for(devices[0].platform, setup.compiler_options),
        jax=jax.__version__,
    )
    return lowered, facts


def options_for(platform: str, chosen: dict[str, str]) -> dict[str, str]:
    """Compiler options for a platform; those chosen for training take precedence."""
    return (GPU_OPTIONS if platform == "gpu" else {}) | chosen


def describe_cudnn() -> None:
    """Makes cuDNN attention traceable without cuDNN: JAX queries the library's version, which
    decides what is supported. There is no public way to set it; a test of `ops.attention` uses the
    same private name.
    """
    from jax._src.cudnn import fused_attention_stablehlo as fused

    fused.check_cudnn_version = lambda: CUDNN


def topology_devices(arguments: dict[str, Any]) -> list[Any]:
    """The devices of a topology.

    Raises:
        UserError: the compiler knows no such topology.
    """
    import jax
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(**arguments).devices)
    except jax.errors.JaxRuntimeError as error:
        name = arguments.get("topology_name") or arguments.get("topology")
        raise UserError(f"--topology {name}: {error}") from error


if __name__ == "__main__":
    main()
