"""Base class of pretext tasks on tiles of an image: the encoder encodes each tile separately, and a
head classifies from the features of all tiles.
"""

import abc
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from mae_jax.methods.images import ImageMethod
from mae_jax.models.encoder import check_tiles
from mae_jax.types import Batch, Extra, Output, Params


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TileMethod(ImageMethod):
    """A classification task on tiles; subclasses define it by `draw`."""

    rank: ClassVar[int | None] = 2

    head: nn.Module
    """Features [B, N, D] of N tiles to logits [B, classes]."""
    tile: int
    """Side of the tiles in pixels."""

    @staticmethod
    def fields(*, encoder: str, tile: int, **more: Any) -> dict[str, Any]:
        """Builds the fields of an image method and checks that its encoder can train on tiles."""
        fields = ImageMethod.fields(encoder=encoder, **more)
        check_tiles(fields["encoder"], encoder, tile)
        return fields | {"tile": tile}

    @abc.abstractmethod
    def draw(self, key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draws tiles [B, N, tile, tile, C] float32 from images [B, H, W, C] uint8, and the labels
        [B] int of the task.
        """

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initializes parameters for images of this number of channels."""
        keys = jax.random.split(key, 3)
        tiles, _ = self.draw(keys[0], batch["image"])
        features = jnp.zeros((*tiles.shape[:2], self.feature_width))
        return {
            "encoder": self.encoder.init(keys[1], tiles[:, 0])["params"],
            "head": self.head.init(keys[2], features)["params"],
        }, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """Cross-entropy of the labels that `draw` returns, one for each image."""
        tiles, label = self.draw(key, batch["image"])
        features = self.features(params, tiles.reshape(-1, *tiles.shape[2:]))  # [B N, D]
        features = features.reshape(*tiles.shape[:2], -1)  # [B, N, D]
        logits = self.head.apply({"params": params["head"]}, features)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
        return Output(loss, extra, {"top1": jnp.mean(jnp.argmax(logits, axis=1) == label)})
