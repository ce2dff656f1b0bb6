"""Colorization (Zhang, Isola and Efros 2016, arXiv 1603.08511): the encoder sees the lightness of
an image, and predicts the colors of its patches, as distributions over bins of Lab's ab plane.
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
        """Fresh parameters for images of this size, and the prior of the bins, which starts
        uniform. The encoder has one channel, whatever the images have.
        """
        keys = jax.random.split(key)
        light = self.normalize(batch["image"])
        sites = jnp.zeros((1, 1, self.encoder.width))
        count = len(lab.bins())
        return {
            "encoder": self.encoder.init(keys[0], light)["params"],
            "head": self.head.init(keys[1], sites)["params"],
        }, {"prior": jnp.full(count, 1 / count, jnp.float32), "seen": jnp.zeros(count)}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """Cross-entropy between the softly encoded colors and their prediction, each place
        weighted by how rare its nearest bin is; the mean over the places, as in the paper not
        divided by the weights, which are 1 on average under the prior.

        The weights come from the prior before this batch, so no example's depends on the others;
        'seen' adds up the shares of the bins, of all parts of a batch.

        Raises:
            UserError: the images have no colors.
        """
        images = batch["image"]
        if images.shape[-1] != 3:
            raise UserError(
                f"colorization cannot learn colors from images of {images.shape[-1]} channels: "
                "train it on RGB images"
            )
        colors = self.to_lab(images)
        logits = self.logits(params, colors)
        indices, weights = lab.encode_soft(self.places(colors), lab.bins())
        # Only the few bins with a weight are looked up: dense targets would take far longer.
        found = jnp.take_along_axis(jax.nn.log_softmax(logits), indices, axis=-1)
        errors = -jnp.sum(weights * found, axis=-1)
        balance = lab.class_weights(extra["prior"], self.rebalance)[indices[..., 0]]
        shares = lab.histogram(indices, weights, logits.shape[-1])
        hit = jnp.argmax(logits, axis=-1) == indices[..., 0]
        metrics = {"top1": jnp.mean(hit.astype(jnp.float32))}
        return Output(jnp.mean(balance * errors), extra | {"seen": extra["seen"] + shares}, metrics)

    def after_update(self, params: Params, extra: Extra, step) -> Extra:
        """The prior moves towards the shares of the bins in the batch. The paper smooths its prior
        by a Gaussian of deviation 5; the soft encoding, which has the same, is all its smoothing.
        """
        shares = extra["seen"] / extra["seen"].sum()
        prior = self.prior_decay * extra["prior"] + (1 - self.prior_decay) * shares
        return {"prior": prior, "seen": jnp.zeros_like(extra["seen"])}

    def adapt(self, shape: Sequence[int], old: Sequence[int] | None) -> Adapt:
        """As of images of one channel, the lightness."""
        return super().adapt((*shape[:-1], 1), old)

    def pictures(self) -> Pictures:
        """Draws the original; what the encoder sees; and the same lightness with the annealed means
        of the predicted colors, scaled up bilinearly. Gray images are colored too.
        """
        return self._draw

    def _draw(self, params, extra, batch, *, key=None, mask=None) -> dict[str, jax.Array]:
        images = batch["image"]
        colors = self.to_lab(images)
        batch_size, height, width, _ = colors.shape
        means = lab.annealed_mean(self.logits(params, colors), lab.bins())
        rows, columns = grid_of((height, width), self.encoder.patch)
        means = means.reshape(batch_size, rows * columns, -1)  # [B, L, P 2]
        ab = unpatchify(means, self.encoder.patch // self.stride, (rows, columns))  # [B, h, w, 2]
        ab = jax.image.resize(ab, (batch_size, height, width, 2), "linear")
        light = colors[..., :1]
        return {
            "original": jnp.broadcast_to(images, colors.shape),
            "gray (what the encoder sees)": _to_bytes(light, jnp.zeros_like(ab)),
            "colorized": _to_bytes(light, ab),
        }

    def to_lab(self, images: jax.Array) -> jax.Array:
        """Lab [B, H, W, 3] float32 of uint8 images [B, H, W, 3], or [B, H, W, 1] of gray values.

        Raises:
            UserError: any other number of channels.
        """
        if images.shape[-1] not in (1, 3):
            raise UserError(
                f"colorization takes images of 1 or 3 channels, these have {images.shape[-1]}: "
                "choose other images or another method"
            )
        rgb = images.astype(jnp.float32) / 255
        return lab.rgb_to_lab(jnp.broadcast_to(rgb, (*rgb.shape[:-1], 3)))

    def normalize(self, images: jax.Array) -> jax.Array:
        """uint8 images [B, H, W, 3], or 1 for gray values, to network inputs [B, H, W, 1]."""
        return self.lightness(self.to_lab(images))

    def lightness(self, colors: jax.Array) -> jax.Array:
        """Network inputs [B, H, W, 1] of Lab images: (L - 50) / 25, which lies in [-2, 2] and has
        about mean 0 and deviation 1 in photographs.
        """
        return (colors[..., :1] - 50) / 25

    def places(self, colors: jax.Array) -> jax.Array:
        """The targets [B, L, P, 2] of Lab images: ab averaged over squares of the stride, P of them
        in each site, row-major as the sites are.
        """
        batch, height, width, _ = colors.shape
        rows, columns = height // self.stride, width // self.stride
        # [B, rows, stride, columns, stride, 2]
        ab = colors[..., 1:].reshape(batch, rows, self.stride, columns, self.stride, 2)
        per_site = self.encoder.patch // self.stride
        # [B, L, 2 P] to [B, L, P, 2]
        return patchify(ab.mean(axis=(2, 4)), per_site).reshape(batch, -1, per_site**2, 2)

    def logits(self, params: Params, colors: jax.Array) -> jax.Array:
        """[B, L, P, Q] float32: for each place of `places`, of each bin."""
        sites = self.tokens(params, self.lightness(colors))[:, self.encoder.prefix :]
        logits = self.head.apply({"params": params["head"]}, sites).astype(jnp.float32)
        return logits.reshape(*sites.shape[:2], -1, len(lab.bins()))  # of [B, L, P Q]


def _to_bytes(light: jax.Array, ab: jax.Array) -> jax.Array:
    """uint8 sRGB of L and ab."""
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
    """Colorization.

    Args:
        encoder: spec string of the encoder.
        pool: 'mean' of the patches, whose colors are predicted, or 'cls'.
        stride: side in pixels of the squares that get a color each; it divides the encoder's
            patch. The paper's is 4.
        rebalance: the paper's lambda in (0, 1], 0.5 there: how far from the inverse of the prior
            the weights of the bins are; 1: all colors weigh the same.
        prior_decay: in [0, 1), of the moving average of the bins' shares over the batches.
        dtype: what the network computes in, 'float32' or 'bfloat16'.

    Raises:
        UserError: a value that is not among those above.
    """
    if not 0 < rebalance <= 1 or not 0 <= prior_decay < 1:
        raise UserError(
            f"rebalance={rebalance} must be in (0, 1], 1 for none, and prior_decay={prior_decay} "
            "in [0, 1)"
        )
    lightness = dict(mean=(0.5,), std=(0.25,))  # what `normalize` removes, of L / 100
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
