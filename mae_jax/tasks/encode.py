"""An encoder as it is, such as one that others have trained: it gives features, and nothing is
learned. Fine-tuning and probing start from it.
"""

import dataclasses
from collections.abc import Sequence

import jax

from mae_jax.methods.images import ImageMethod
from mae_jax.types import Batch, Extra, Output, Params, UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Encoding(ImageMethod):
    """The task; `make` documents the fields."""

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Fresh parameters for images of this size and number of channels."""
        images = self.normalize(batch["image"])
        return {"encoder": self.encoder.init(key, images)["params"]}, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """Raises UserError: there is none."""
        raise UserError("tasks.encode learns nothing: train tasks.finetune, with init_from.path")


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    pool: str = "cls",
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> Encoding:
    """An encoder.

    Args:
        encoder: spec string.
        pool: 'cls' or 'mean' of the patches, after the encoder's norm: what are called features.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: what it computes in, 'float32' or 'bfloat16'.

    Raises:
        UserError: a value that is not among those above.
    """
    return Encoding(**Encoding.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype))
