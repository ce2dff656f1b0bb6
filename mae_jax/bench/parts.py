"""Breakdown of a training step: its parts, compiled and timed separately.

'gradient' is the loss and its gradient with respect to all parameters; 'optimizer' is the update
and the norm of the gradient. For a masked autoencoder the gradient has three parts: 'encoder' is
the forward and backward pass from pixels to tokens, with a fixed mask and a synthetic gradient of
the tokens; 'decoder' is the same from fixed tokens to predicted patches; 'loss' draws masks,
computes targets, and compares them with a fixed prediction. Two parts normalize the pixels, and
separate programs cannot overlap, so the sum of the parts differs from the time of the step; tables
show the difference. A fusion of encoder blocks (`fuse`) is in the gradient only.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from mae_jax.bench.setup import Setup
from mae_jax.engine import mesh as meshes
from mae_jax.engine.step import stream_key, update
from mae_jax.methods.mae import MaskedAutoencoding
from mae_jax.ops.patches import grid_of, patch_sides
from mae_jax.types import Batch

DISJOINT = ("encoder", "decoder", "loss", "optimizer")
"""Parts of a masked autoencoder that add up to a step."""


class Live:
    """A train state that advances with each call, because the calls donate it.

    Args:
        setup: of the config.
        step: compiled, (state, batch) -> (state, metrics).
    """

    def __init__(self, setup: Setup, step: Callable):
        self.setup, self._step = setup, step
        self.state, self.batch = setup.initial_state(), setup.batch()
        rows = setup.batch_size // setup.microbatches
        self.part = jax.jit(
            lambda batch: {name: x[:rows] for name, x in batch.items()},
            out_shardings=meshes.batch_sharding(setup.mesh),
        )(self.batch)

    def step(self) -> jax.Array:
        """Runs one training step; returns its loss."""
        self.state, metrics = self._step(self.state, self.batch)
        return metrics["loss"]

    def calls(self) -> dict[str, Callable[[], Any]]:
        """Part of the step -> function that runs it, on one microbatch if gradients are
        accumulated (the optimizer: one update).
        """
        setup, key = self.setup, stream_key(0, "bench", 0)
        shardings = jax.tree.map(lambda x: x.sharding, setup.abstract_state)
        split = meshes.batch_sharding(setup.mesh)
        gradient = _jit(
            setup,
            jax.value_and_grad(_loss(setup.method), has_aux=True),
            ((meshes.replicated(setup.mesh), shardings.extra), shardings.params),
        )
        move = _jit(
            setup,
            lambda state, gradients: update(
                setup.tx, setup.method, state, jnp.zeros(()), gradients, state.extra
            )[0],
            shardings,
            donate_argnums=0,
        )
        gradients = jax.jit(
            lambda params: jax.tree.map(lambda x: jnp.full(x.shape, 1e-6, x.dtype), params),
            out_shardings=shardings.params,
        )(self.state.params)

        def optimizer() -> jax.Array:
            self.state = move(self.state, gradients)
            return self.state.step

        calls = {
            "gradient": lambda: gradient(
                self.state.params, self.state.extra, self.part, key, self.state.step
            ),
            "optimizer": optimizer,
        }
        if isinstance(setup.method, MaskedAutoencoding):
            calls = _mae(self, key, shardings.params, split) | calls
        return calls


def _jit(setup: Setup, function: Callable, shardings: Any, **options: Any) -> Callable:
    """Jits a function of arrays on the mesh with the step's compiler options.

    Args:
        shardings: of its results.
    """
    return jax.jit(
        meshes.on_mesh(setup.mesh)(function),
        out_shardings=shardings,
        compiler_options=setup.compiler_options or None,
        **options,
    )


def _loss(method) -> Callable:
    def loss(params, extra, batch: Batch, key: jax.Array, step):
        output = method.loss(params, extra, batch, key, step)
        return output.loss, output.extra

    return loss


def _mae(live: Live, key: jax.Array, shardings: Any, split: Any) -> dict[str, Callable[[], Any]]:
    method: MaskedAutoencoding = live.setup.method
    encoder, decoder = method.encoder, method.decoder
    *space, channels = live.setup.shape
    grid = grid_of(space, encoder.patch)
    values = method.target.width(patch_sides(encoder.patch, len(space)), channels)
    masked_only = method.loss_on == "masked" and not encoder.mask_tokens

    def draw(batch, extra):
        return method.draw_mask(key, batch["image"], extra=extra)

    def encode(params, batch, mask):
        variables, images = {"params": params}, batch["image"]
        return encoder.apply(variables, images, mask, normalize=method.normalize)

    def decode(params, tokens, mask):
        mask = None if encoder.mask_tokens else method.predicted(mask)
        return decoder.apply({"params": params}, tokens, mask, grid, values, masked_only)

    def predict(params, batch, extra):
        return method.reconstruct_for_loss(params, batch["image"], draw(batch, extra))

    def encoder_gradient(params, batch, mask):
        tokens, back = jax.vjp(lambda params: encode(params, batch, mask), params)
        return back(tokens)[0]

    def decoder_gradient(params, tokens, mask):
        prediction, back = jax.vjp(lambda *args: decode(*args, mask), params, tokens)
        return back(prediction)

    def loss_gradient(prediction, extra, batch):
        mask = draw(batch, extra)
        error = lambda given: method.error(given, extra, batch, mask)
        return jax.value_and_grad(error)(prediction)

    params, extra, part = live.state.params, live.state.extra, live.part
    jit = partial(_jit, live.setup)
    mask = jit(draw, split)(part, extra)
    tokens = jit(encode, split)(params["encoder"], part, mask)
    prediction = jit(predict, split)(params, part, extra)
    first = jit(encoder_gradient, shardings["encoder"])
    second = jit(decoder_gradient, (shardings["decoder"], split))
    third = jit(loss_gradient, (meshes.replicated(live.setup.mesh), split))
    return {
        "encoder": lambda: first(live.state.params["encoder"], part, mask),
        "decoder": lambda: second(live.state.params["decoder"], tokens, mask),
        "loss": lambda: third(prediction, live.state.extra, part),
    }
