"""The costs of a training step: FLOPs of the lowered program and memory of the compiled one. Unlike
timings, they are the same on every run.
"""

from collections.abc import Callable
from typing import Any

import jax

from mae_jax.types import Batch, TrainState

Costs = dict[str, Any]
"""'parameters' and 'encoder_parameters': numbers of parameters; 'gflops_per_image': 10^9 operations
of the whole step per image; 'step_megabytes': 10^6 bytes per device; both None if the compiler does
not report them; 'image': shape [*space, C] of the training images, or None; 'device'; 'jax'."""


def compile_step(
    step: Callable, abstract_state: TrainState, batch: Batch, *, parts: int
) -> tuple[Callable, Costs]:
    """Compiles a jitted training step for batches of one size.

    Args:
        step: result of `make_train_step`.
        abstract_state, batch: shapes and shardings of the state and of a global batch.
        parts: number of microbatches of the batch.

    Returns:
        The compiled step, and its costs. The memory includes state, batch and temporaries.
    """
    lowered = step.lower(abstract_state, batch)
    compiled = lowered.compile()
    counted, memory = lowered.cost_analysis(), compiled.memory_analysis()
    mesh = abstract_state.step.sharding.mesh
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    costs = dict(
        parameters=count(abstract_state.params),
        encoder_parameters=count(abstract_state.params.get("encoder", {})),
        gflops_per_image=None,
        step_megabytes=None,
        image=list(batch["image"].shape[1:]) if "image" in batch else None,
        device=f"{mesh.devices.flat[0].device_kind} x {mesh.size}",
        jax=jax.__version__,
    )
    if counted and "flops" in counted:  # XLA counts the loop over microbatches once
        costs["gflops_per_image"] = counted["flops"] * parts / len(next(iter(batch.values()))) / 1e9
    if memory is not None:
        needed = memory.argument_size_in_bytes + memory.output_size_in_bytes
        needed += memory.temp_size_in_bytes - memory.alias_size_in_bytes
        costs["step_megabytes"] = needed / 1e6
    return compiled, costs
