"""What methods share that ask something about tiles of an image: the encoder sees each tile by
itself, and a head answers from the features of all of them.
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
    """A method whose question is `draw`."""

    rank: ClassVar[int | None] = 2

    head: nn.Module
    """[B, N, D] features of N tiles to logits [B, answers]."""
    tile: int
    """Side of the tiles in pixels."""

    @staticmethod
    def fields(*, encoder: str, tile: int, **more: Any) -> dict[str, Any]:
        """Those of an image method whose encoder can learn from tiles, and the side of these."""
        fields = ImageMethod.fields(encoder=encoder, **more)
        check_tiles(fields["encoder"], encoder, tile)
        return fields | {"tile": tile}

    @abc.abstractmethod
    def draw(self, key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Tiles [B, N, tile, tile, C] float32 of images [B, H, W, C] uint8, and the right answers
        [B] int.
        """

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
        features = self.features(params, seen.reshape(-1, *seen.shape[2:]))  # [B N, D]
        features = features.reshape(*seen.shape[:2], -1)  # [B, N, D]
        logits = self.head.apply({"params": params["head"]}, features)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
        return Output(loss, extra, {"top1": jnp.mean(jnp.argmax(logits, axis=1) == label)})
