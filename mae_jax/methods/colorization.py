"""Colorization (Zhang, Isola and Efros 2016, arXiv 1603.08511): the encoder sees the lightness L of
an image, and a head predicts its colors, as distributions over bins of the ab plane of CIE Lab.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.methods.images import ImageMethod
from mae_jax.models.transformer import dense_init
from mae_jax.ops import lab
from mae_jax.ops.patches import grid_of, patchify, unpatchify
from mae_jax.types import Adapt, Batch, Extra, Output, Params, Pictures, UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Colorization(ImageMethod):
    """The method; `make` documents the fields."""

    rank: ClassVar[int | None] = 2

    head: nn.Dense
    stride: int
    rebalance: float
    prior_decay: float

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initializes parameters for images of this size, and a uniform prior over the bins. The
        encoder's input, the lightness, has one channel.
        """
        keys = jax.random.split(key)
        light = self.normalize(batch["image"])
        tokens = jnp.zeros((1, 1, self.encoder.width))
        count = len(lab.bins())
        return {
            "encoder": self.encoder.init(keys[0], light)["params"],
            "head": self.head.init(keys[1], tokens)["params"],
        }, {"prior": jnp.full(count, 1 / count, jnp.float32), "seen": jnp.zeros(count)}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """Cross-entropy with the soft-encoded colors, weighted by the rarity of the nearest bin.
        As in the paper, the mean over positions is not divided by the weights, whose mean under the
        prior is 1. The metric 'top1' is the accuracy for the nearest bins.

        The weights come from the prior before this batch, so that examples do not depend on each
        other. 'seen' accumulates the frequencies of the bins over microbatches.

        Raises:
            UserError: images that are not RGB.
        """
        images = batch["image"]
        if images.shape[-1] != 3:
            raise UserError(
                f"colorization cannot learn colors from images of {images.shape[-1]} channels: "
                "train it on RGB images"
            )
        colors = self.to_lab(images)  # [B, H, W, 3]
        logits = self.logits(params, colors)  # [B, L, P, Q]
        indices, weights = lab.encode_soft(self.places(colors), lab.bins())  # [B, L, P, 5] each
        # Only the few bins with nonzero weight are gathered: dense targets would take far longer.
        log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), indices, axis=-1)
        errors = -jnp.sum(weights * log_probs, axis=-1)  # [B, L, P]
        balance = lab.class_weights(extra["prior"], self.rebalance)[indices[..., 0]]  # [B, L, P]
        shares = lab.histogram(indices, weights, logits.shape[-1])  # [Q]
        correct = jnp.argmax(logits, axis=-1) == indices[..., 0]
        metrics = {"top1": jnp.mean(correct.astype(jnp.float32))}
        return Output(jnp.mean(balance * errors), extra | {"seen": extra["seen"] + shares}, metrics)

    def after_update(self, params: Params, extra: Extra, step) -> Extra:
        """Updates the prior, a moving average of the frequencies of the bins in the batches. The
        paper smooths its prior by a Gaussian of deviation 5; here the soft encoding, whose Gaussian
        has the same deviation, is the only smoothing.
        """
        frequencies = extra["seen"] / extra["seen"].sum()
        prior = self.prior_decay * extra["prior"] + (1 - self.prior_decay) * frequencies
        return {"prior": prior, "seen": jnp.zeros_like(extra["seen"])}

    def adapt(self, shape: Sequence[int], old: Sequence[int] | None) -> Adapt:
        """Adapts the encoder to images with one channel, the lightness."""
        return super().adapt((*shape[:-1], 1), old)

    def pictures(self) -> Pictures:
        """Draws the original; its lightness, which is the encoder's input; and the lightness with
        the annealed means of the predicted colors, upsampled bilinearly. Also for gray images.
        """
        return self._draw

    def _draw(self, params, extra, batch, *, key=None, mask=None) -> dict[str, jax.Array]:
        images = batch["image"]
        colors = self.to_lab(images)
        batch_size, height, width, _ = colors.shape
        means = lab.annealed_mean(self.logits(params, colors), lab.bins())  # [B, L, P, 2]
        rows, columns = grid_of((height, width), self.encoder.patch)
        means = means.reshape(batch_size, rows * columns, -1)  # [B, L, P 2]
        ab = unpatchify(means, self.encoder.patch // self.stride, (rows, columns))  # [B, h, w, 2]
        ab = jax.image.resize(ab, (batch_size, height, width, 2), "linear")  # [B, H, W, 2]
        light = colors[..., :1]
        return {
            "original": jnp.broadcast_to(images, colors.shape),
            "gray (what the encoder sees)": _to_bytes(light, jnp.zeros_like(ab)),
            "colorized": _to_bytes(light, ab),
        }

    def to_lab(self, images: jax.Array) -> jax.Array:
        """Converts uint8 RGB [B, H, W, 3] or gray [B, H, W, 1] images to Lab [B, H, W, 3] float32.

        Raises:
            UserError: another number of channels.
        """
        if images.shape[-1] not in (1, 3):
            raise UserError(
                f"colorization takes images of 1 or 3 channels, these have {images.shape[-1]}: "
                "choose other images or another method"
            )
        rgb = images.astype(jnp.float32) / 255
        return lab.rgb_to_lab(jnp.broadcast_to(rgb, (*rgb.shape[:-1], 3)))

    def normalize(self, images: jax.Array) -> jax.Array:
        """Converts uint8 RGB [B, H, W, 3] or gray [B, H, W, 1] images to inputs [B, H, W, 1]."""
        return self.lightness(self.to_lab(images))

    def lightness(self, colors: jax.Array) -> jax.Array:
        """Network inputs [B, H, W, 1] from Lab images: (L - 50) / 25, in [-2, 2], with mean about 0
        and standard deviation about 1 for photographs.
        """
        return (colors[..., :1] - 50) / 25

    def places(self, colors: jax.Array) -> jax.Array:
        """Target colors [B, L, P, 2] of Lab images: the mean ab of each square of side `stride`.
        Each of the L patches has P squares; both are in row-major order.
        """
        batch, height, width, _ = colors.shape
        rows, columns = height // self.stride, width // self.stride
        # [B, rows, stride, columns, stride, 2], whose mean is [B, rows, columns, 2]
        ab = colors[..., 1:].reshape(batch, rows, self.stride, columns, self.stride, 2)
        side = self.encoder.patch // self.stride  # of a patch, in squares
        # [B, L, 2 P] to [B, L, P, 2]
        return patchify(ab.mean(axis=(2, 4)), side).reshape(batch, -1, side**2, 2)

    def logits(self, params: Params, colors: jax.Array) -> jax.Array:
        """Logits [B, L, P, Q] float32 over the Q bins, for each square of `places`."""
        tokens = self.tokens(params, self.lightness(colors))[:, self.encoder.prefix :]  # [B, L, D]
        logits = self.head.apply({"params": params["head"]}, tokens).astype(jnp.float32)
        return logits.reshape(*tokens.shape[:2], -1, len(lab.bins()))  # of [B, L, P Q]


def _to_bytes(light: jax.Array, ab: jax.Array) -> jax.Array:
    """L [B, H, W, 1] and ab [B, H, W, 2] to sRGB [B, H, W, 3] uint8."""
    rgb = lab.lab_to_rgb(jnp.concatenate([light, ab], axis=-1))
    return jnp.round(rgb * 255).astype(jnp.uint8)


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    pool: str = "mean",
    stride: int = 4,
    rebalance: float = 0.5,
    prior_decay: float = 0.99,
    dtype: str = "float32",
) -> Colorization:
    """Builds a colorization method.

    Args:
        encoder: spec string of the encoder.
        pool: features from the tokens: 'mean' of the patches, or 'cls'.
        stride: side in pixels of the squares whose mean color is predicted; a divisor of the
            encoder's patch. The paper's is 4.
        rebalance: the paper's lambda in (0, 1], 0.5 there: weight of the uniform distribution mixed
            into the prior, by whose inverse colors are weighted; 1: all weights are equal.
        prior_decay: decay of the moving average of the bins' frequencies, in [0, 1).
        dtype: of the network's computations, 'float32' or 'bfloat16'.

    Raises:
        UserError: an unknown or invalid value.
    """
    if not 0 < rebalance <= 1 or not 0 <= prior_decay < 1:
        raise UserError(
            f"rebalance={rebalance} must be in (0, 1], 1 for none, and prior_decay={prior_decay} "
            "in [0, 1)"
        )
    lightness = dict(mean=(0.5,), std=(0.25,))  # of L / 100, equal to `lightness` of L
    fields = Colorization.fields(encoder=encoder, pool=pool, dtype=dtype, **lightness)
    patch = fields["encoder"].patch
    if not isinstance(patch, int) or stride < 1 or patch % stride:
        raise UserError(
            f"stride={stride} does not divide the encoder's patch, {patch}, one number of pixels: "
            "choose a stride that does"
        )
    outputs = (patch // stride) ** 2 * len(lab.bins())
    return Colorization(
        **fields,
        head=nn.Dense(outputs, kernel_init=dense_init, dtype=jnp.dtype(dtype)),
        stride=stride,
        rebalance=rebalance,
        prior_decay=prior_decay,
    )
