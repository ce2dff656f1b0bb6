"""The train state and its jitted update: sharded over a mesh, with donated buffers and gradient
accumulation. Steps with a non-finite loss or gradient are skipped.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from mae_jax.engine.memory import check_state
from mae_jax.engine.mesh import batch_sharding, infer_shardings, on_mesh, replicated
from mae_jax.types import Batch, Extra, Method, Params, Skips, TrainState, UserError


def stream_key(seed: int, stream: str, step) -> jax.Array:
    """The PRNG key of a named random stream at a step: a pure function of (seed, stream, step)."""
    # CRC32, because Python's `hash` of a string differs between processes.
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(stream.encode()))
    return jax.random.fold_in(key, step)


def plan_state(
    mesh: Mesh,
    method: Method,
    tx: optax.GradientTransformationExtraArgs,
    batch: Mapping[str, Any],
    *,
    seed: int,
    sample: Callable[[int, Sequence[str]], Mapping[str, Any]] | None = None,
) -> tuple[Callable[[], TrainState], TrainState]:
    """Plans the initialization of the train state and its sharding.

    Args:
        batch: arrays of one batch, or their shapes and types.
        seed: of the run.
        sample: (number, fields) -> training examples for `Method.constants`, see `Data.sample`.

    Returns:
        A function that initializes the state in its shards, and raises UserError if the devices
        cannot hold it; and the abstract state: shapes, types and shardings.
    """
    # One row for each device: the smallest batch that all of them can share.
    rows = {k: jax.ShapeDtypeStruct((mesh.size, *v.shape[1:]), v.dtype) for k, v in batch.items()}

    @on_mesh(mesh)
    def init() -> TrainState:
        zeros = {k: jnp.zeros(v.shape, v.dtype) for k, v in rows.items()}
        params, extra = method.init(stream_key(seed, "init", 0), zeros)
        zero = jnp.zeros((), jnp.int32)
        return TrainState(zero, params, tx.init(params), extra, Skips(zero, zero))

    shapes = jax.eval_shape(init)  # traces `init` without computing anything
    shardings = infer_shardings(shapes, mesh)
    abstract_state = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        shardings,
    )
    # Initialized in shards: no device has to hold the whole state.
    initialize = jax.jit(init, out_shardings=shardings)

    def initial_state() -> TrainState:
        check_state(abstract_state)
        if not method.sample:
            return initialize()
        constants = method.constants(sample(method.sample, method.sample_fields))
        check_constants(constants, abstract_state.extra)
        state = initialize()
        sharded = {name: jax.tree.map(place, state.extra[name], x) for name, x in constants.items()}
        return state.replace(extra=state.extra | sharded)

    return initial_state, abstract_state


def check_constants(constants: Extra, initial: Extra) -> None:
    """Raises UserError unless constants exist and have the shapes of the initial collections."""
    if not constants:
        raise UserError("a method with `sample` has no constants: return them, or set sample = 0")
    shapes = lambda tree: jax.tree.map(np.shape, tree)
    for name, new in constants.items():
        if name not in initial or shapes(new) != shapes(initial[name]):
            raise UserError(
                f"constants: {name!r} has the shapes {shapes(new)}, but init returned "
                f"{shapes(initial.get(name))}: return equal shapes, in a target from `initial`"
            )


def place(old: jax.Array, new: Any) -> jax.Array:
    """Converts `new` to an array with the type and sharding of `old`."""
    return jax.device_put(np.asarray(new, old.dtype), old.sharding)


def make_train_step(
    mesh: Mesh,
    abstract_state: TrainState,
    method: Method,
    tx: optax.GradientTransformationExtraArgs,
    *,
    seed: int,
    accumulate: int = 1,
    compiler_options: Mapping[str, str] | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Builds the jitted train step, (state, batch) -> (state, metrics). It donates the old state.

    A step with a non-finite loss or gradient leaves parameters, optimizer state and collections
    unchanged. The metric 'skipped' counts these steps, 'skipped_in_a_row' only the current streak.

    Args:
        abstract_state: shapes, types and shardings of the state.
        seed: of the run.
        accumulate: number of microbatches, which reduce the memory for activations; loss, metrics
            and gradients are averaged over them.
        compiler_options: see `engine.compiler`.
    """

    @on_mesh(mesh)
    def step(state: TrainState, batch: Batch):
        key = stream_key(seed, "train", state.step)
        gradient = jax.value_and_grad(
            lambda params, extra, rows, key: _loss(method, params, extra, rows, key, state.step),
            has_aux=True,
        )
        (loss, (extra, metrics)), grads = _accumulated(gradient, state, batch, key, accumulate)
        state, norm = update(tx, method, state, loss, grads, extra)
        metrics = {
            **metrics,
            "loss": loss,
            "grad_norm": norm,
            "skipped": state.skips.total,
            "skipped_in_a_row": state.skips.in_a_row,
        }
        return state, metrics

    shardings = jax.tree.map(lambda x: x.sharding, abstract_state)
    return jax.jit(
        step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,  # the state, which the next one replaces in memory
        compiler_options=compiler_options or None,
    )


def update(
    tx: optax.GradientTransformationExtraArgs,
    method: Method,
    state: TrainState,
    loss: jax.Array,
    grads: Params,
    extra: Extra,
) -> tuple[TrainState, jax.Array]:
    """Applies an optimizer step; returns the next state and the global norm of the gradients.

    If the loss or the norm is not finite, only the step and skip counts change. A single `cond`
    contains the whole update: with a `where` on each result, as in `optax.apply_if_finite`, XLA
    keeps a copy of the moments.
    """
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)

    def move():
        updates, opt_state = tx.update(grads, state.opt_state, state.params, step=state.step)
        params = optax.apply_updates(state.params, updates)
        return params, opt_state, method.after_update(params, extra, state.step)

    def stay():
        return state.params, state.opt_state, state.extra

    moved = jax.lax.cond(finite, move, stay)
    skips = Skips(state.skips.total + ~finite, jnp.where(finite, 0, state.skips.in_a_row + 1))
    return TrainState(state.step + 1, *moved, skips), norm


def _loss(method: Method, params, extra, batch: Batch, key: jax.Array, step):
    output = method.loss(params, extra, batch, key, step)
    # Checked here: a missing collection would fail later, as a pytree mismatch without a name.
    if jax.tree.structure(output.extra) != jax.tree.structure(extra):
        raise UserError(
            f"{type(method).__name__}.loss returned the collections {sorted(output.extra)}, and "
            f"must return all of {sorted(extra)}"
        )
    return output.loss, (output.extra, dict(output.metrics))


def _accumulated(gradient, state: TrainState, batch: Batch, key: jax.Array, count: int):
    """Loss, metrics and gradients averaged over `count` microbatches, and the last collections."""
    if count == 1:
        return gradient(state.params, state.extra, batch, key)
    # [B, ...] to [count, B / count, ...]. Microbatch i has every count-th row, not a contiguous
    # block, so that each device splits the rows it holds and none are exchanged.
    split = jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(len(x) // count, count, *x.shape[1:]), 1, 0), batch
    )

    def body(carry, microbatch):
        extra, i = carry
        (loss, (extra, metrics)), grads = gradient(
            state.params, extra, microbatch, jax.random.fold_in(key, i)
        )
        return (extra, i + 1), (loss, metrics, grads)

    def add(carry, microbatch):
        carry, total = carry
        carry, results = body(carry, microbatch)
        return (carry, jax.tree.map(jnp.add, total, results)), None

    # Sums are carried: as outputs of the scan, the gradients of all microbatches would be stacked.
    zero = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(body, (state.extra, 0), jax.tree.map(lambda x: x[0], split))[1],
    )
    ((extra, _), total), _ = jax.lax.scan(add, ((state.extra, 0), zero), split)
    loss, metrics, grads = jax.tree.map(lambda x: x / count, total)
    return (loss, (extra, metrics)), grads
