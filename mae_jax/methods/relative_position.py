"""Relative position (arXiv 1505.05192): given the tile at the centre of an image and one of its
eight neighbours, say which neighbour it is.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from mae_jax.models.encoder import Encoder, make_tile_encoder, pooled
from mae_jax.models.vit import dense_init
from mae_jax.ops import pixels, tiles
from mae_jax.spec import check_choice
from mae_jax.types import Batch, Extra, Output, Params, UserError


class PairHead(nn.Module):
    """A perceptron with one hidden layer, on what the encoder says of both tiles."""

    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """[B, 2, D] to logits [B, 8] float32."""
        dense = lambda width, name: nn.Dense(
            width, kernel_init=dense_init, dtype=self.dtype, name=name
        )
        x = features.reshape(len(features), -1)
        x = nn.gelu(dense(self.hidden, "fc1")(x), approximate=False)
        return dense(8, "fc2")(x).astype(jnp.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TileTask:
    """A method that asks something about tiles of an image: the encoder sees each by itself, and a
    classifier answers from what it says of all of them. `draw` is the question.
    """

    encoder: Encoder
    head: nn.Module
    """[B, N, D] features of N tiles to logits [B, answers]."""
    pool: str
    tile: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def draw(self, key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Tiles [B, N, tile, tile, C] float32 of images [B, H, W, C] uint8, and the right answers
        [B] int.
        """
        raise NotImplementedError

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Fresh parameters for images of this number of channels."""
        keys = jax.random.split(key, 3)
        seen, _ = self.draw(keys[0], batch["image"])
        features = jnp.zeros((*seen.shape[:2], self.encoder.width))
        return {
            "encoder": self.encoder.init(keys[1], seen[:, 0])["params"],
            "head": self.head.init(keys[2], features)["params"],
        }, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """Cross-entropy of the answers, one question about each image."""
        seen, label = self.draw(key, batch["image"])
        features = self.features(params, seen.reshape(-1, *seen.shape[2:]))
        logits = self.head.apply({"params": params["head"]}, features.reshape(*seen.shape[:2], -1))
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
        return Output(loss, extra, {"top1": jnp.mean(jnp.argmax(logits, axis=1) == label)})

    def predict(self, params: Params, extra: Extra, batch: Batch) -> dict[str, jax.Array]:
        """'features' [B, D] float32 of whole images, with all of their colours."""
        images = pixels.normalize(batch["image"], self.mean, self.std)
        return {"features": self.features(params, images)}

    def after_update(self, params: Params, extra: Extra, step) -> Extra:
        """Nothing follows an update."""
        return extra

    def features(self, params: Params, images: jax.Array) -> jax.Array:
        """[B, D] float32 of normalised images or tiles."""
        return pooled(self.encoder.apply({"params": params["encoder"]}, images), self.pool)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelativePosition(TileTask):
    """The method; `make` documents the fields."""

    colors: str

    def draw(self, key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The pairs that the network is asked about.

        Args:
            images: [B, H, W, C] uint8.

        Returns:
            [B, 2, tile, tile, C] float32: the central tile and the neighbour; [B] int: which of
            the eight, row-major around the centre.

        Raises:
            UserError: tiles that do not fit, or colours to be taken out of other than 3 channels.
        """
        cut_key, label_key, color_key = jax.random.split(key, 3)
        nine = tiles.cut(cut_key, images, self.tile)
        label = jax.random.randint(label_key, (len(images),), 0, 8)
        place = label + (label >= 4)  # 4 is the centre
        other = jnp.take_along_axis(nine, place[:, None, None, None, None], axis=1)
        pairs = jnp.concatenate([nine[:, 4:5], other], axis=1)
        if self.colors == "project":
            pairs = tiles.project_colors(pairs.astype(jnp.float32) / 255)
            return pixels.standardize(pairs, self.mean, self.std), label
        pairs = pixels.normalize(pairs, self.mean, self.std)
        return tiles.drop_colors(color_key, pairs) if self.colors == "drop" else pairs, label


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    pool: str = "cls",
    tile: int = 64,
    colors: str = "drop",
    hidden: int = 4096,
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> RelativePosition:
    """Relative position.

    Args:
        encoder: spec string of the encoder.
        pool: 'cls' or 'mean' of the sites of a tile, and of an image in `predict`.
        tile: side in pixels, a multiple of the encoder's patch, smaller than a third of the images
            for gaps between tiles: for images of 224 pixels 64.
        colors: against chromatic aberration 'drop' leaves each tile one channel, 'project' takes
            out the axis from magenta to green, 'keep' leaves colours alone.
        hidden: width of the layer between the features of both tiles and the answer.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: what the networks compute in, 'float32' or 'bfloat16'.

    Raises:
        UserError: a value that is not among those above.
    """
    check_choice("colors", colors, ("drop", "project", "keep"))
    if hidden < 1:
        raise UserError(f"hidden={hidden} must be positive")
    network = make_tile_encoder(encoder, tile=tile, pool=pool, dtype=dtype)
    head = PairHead(hidden, jnp.dtype(dtype))
    return RelativePosition(
        encoder=network,
        head=head,
        pool=pool,
        tile=tile,
        mean=tuple(mean),
        std=tuple(std),
        colors=colors,
    )
