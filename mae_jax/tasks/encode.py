"""Feature extraction by an encoder without training, such as one with imported weights. Fine-tuning
and linear probing can start from it.
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
        """Initializes parameters for images of this size and number of channels."""
        images = self.normalize(batch["image"])
        return {"encoder": self.encoder.init(key, images)["params"]}, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """Raises UserError, because this task has no loss."""
        raise UserError("tasks.encode learns nothing: train tasks.finetune, with init_from.path")


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    pool: str = "cls",
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> Encoding:
    """Builds the task of extracting features with an encoder.

    Args:
        encoder: spec string of the encoder.
        pool: features from the tokens after the final norm: 'cls' or 'mean' of the patches.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: of the encoder's computations, 'float32' or 'bfloat16'.

    Raises:
        UserError: an unknown or invalid value.
    """
    return Encoding(**Encoding.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype))
