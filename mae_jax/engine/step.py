"""The train state and the one jitted step that moves it: sharded, donated, accumulated, and safe
against losses and gradients that are not finite.
"""

import zlib
from collections.abc import Callable, Mapping
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
    """The key of a named stream of randomness at a step: a pure function of its arguments."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(stream.encode()))
    return jax.random.fold_in(key, step)


def plan_state(
    mesh: Mesh,
    method: Method,
    tx: optax.GradientTransformationExtraArgs,
    batch: Mapping[str, Any],
    *,
    seed: int,
    sample: Callable[[int], Mapping[str, Any]] | None = None,
) -> tuple[Callable[[], TrainState], TrainState]:
    """How the train state starts, and how it is laid out.

    Args:
        batch: arrays or shapes of one batch.
        sample: makes so many training examples, for a method with `Method.constants`.

    Returns:
        A function that makes the initial state, born sharded, and raises UserError if the devices
        cannot hold it; and its shapes with their shardings.
    """
    rows = {k: jax.ShapeDtypeStruct((mesh.size, *v.shape[1:]), v.dtype) for k, v in batch.items()}

    @on_mesh(mesh)
    def init() -> TrainState:
        zeros = {k: jnp.zeros(v.shape, v.dtype) for k, v in rows.items()}
        params, extra = method.init(stream_key(seed, "init", 0), zeros)
        zero = jnp.zeros((), jnp.int32)
        return TrainState(zero, params, tx.init(params), extra, Skips(zero, zero))

    shapes = jax.eval_shape(init)
    shardings = infer_shardings(shapes, mesh)
    abstract_state = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        shardings,
    )
    initialize = jax.jit(init, out_shardings=shardings)

    def initial_state() -> TrainState:
        check_state(abstract_state)
        state = initialize()
        if not method.sample:
            return state
        found = method.constants(sample(method.sample))
        check_constants(found, state.extra)
        placed = {name: jax.tree.map(place, state.extra[name], x) for name, x in found.items()}
        return state.replace(extra=state.extra | placed)

    return initial_state, abstract_state


def check_constants(found: Extra, initial: Extra) -> None:
    """Raises UserError unless constants can stand where `init` has made room for them."""
    if not found:
        raise UserError("a method with `sample` has no constants: return them, or set sample = 0")
    shapes = lambda tree: jax.tree.map(np.shape, tree)
    for name, new in found.items():
        if name not in initial or shapes(new) != shapes(initial[name]):
            raise UserError(
                f"constants: {name!r} has the shapes {shapes(new)}, and init made "
                f"{shapes(initial.get(name))}: make both the same, of a target in `initial`"
            )


def place(old: jax.Array, new: Any) -> jax.Array:
    """An array where another one was, with its type and sharding."""
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
    """Compiles (state, batch) -> (state, metrics). The old state's buffers are reused.

    A loss or gradient that is not finite leaves parameters, moments and collections as they were;
    'skipped' counts such steps, 'skipped_in_a_row' those since the last good one.

    Args:
        abstract_state: shapes and shardings of the state.
        seed: of the run.
        accumulate: parts into which a batch is split to save memory; their gradients are averaged.
        compiler_options: see `engine.compiler`.
    """

    @on_mesh(mesh)
    def step(state: TrainState, batch: Batch):
        key = stream_key(seed, "train", state.step)
        gradient = jax.value_and_grad(
            lambda params, extra, part, key: _loss(method, params, extra, part, key, state.step),
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
        donate_argnums=0,
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
    """The state after an optimizer step, and the global norm of the gradients.

    If the loss or the norm is not finite, only the counts move. All that moves is in one branch:
    with a choice after each update, as in `optax.apply_if_finite`, XLA keeps a copy of the moments.
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
    if jax.tree.structure(output.extra) != jax.tree.structure(extra):
        raise UserError(
            f"{type(method).__name__}.loss returned the collections {sorted(output.extra)}, and "
            f"must return all of {sorted(extra)}"
        )
    return output.loss, (output.extra, dict(output.metrics))


def _accumulated(gradient, state: TrainState, batch: Batch, key: jax.Array, parts: int):
    """Loss, collections, metrics and gradients, averaged over `parts` parts of the batch."""
    if parts == 1:
        return gradient(state.params, state.extra, batch, key)
    # Part i takes every parts-th row, so that each device splits its own rows and none travel.
    split = jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(len(x) // parts, parts, *x.shape[1:]), 1, 0), batch
    )

    def body(carry, part):
        extra, i = carry
        (loss, (extra, metrics)), grads = gradient(
            state.params, extra, part, jax.random.fold_in(key, i)
        )
        return (extra, i + 1), (loss, metrics, grads)

    def add(carry, part):
        carry, total = carry
        carry, sums = body(carry, part)
        return (carry, jax.tree.map(jnp.add, total, sums)), None

    zero = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(body, (state.extra, 0), jax.tree.map(lambda x: x[0], split))[1],
    )
    ((extra, _), total), _ = jax.lax.scan(add, ((state.extra, 0), zero), split)
    loss, metrics, grads = jax.tree.map(lambda x: x / parts, total)
    return (loss, (extra, metrics)), grads
