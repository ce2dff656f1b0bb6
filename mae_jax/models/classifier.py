"""An encoder with a linear classification head, as MAE fine-tunes it (arXiv 2111.06377, A.1)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.encoder import Encoder, pooled
from mae_jax.models.norm import LayerNorm

head_init = nn.initializers.normal(2e-5)  # the deviation of MAE's official fine-tuning


class Classifier(nn.Module):
    """Pools the encoder's tokens and classifies the result.

    With `pool` 'mean' the head reads the mean of the patch tokens after its own LayerNorm, which
    replaces the encoder's final norm; with 'cls', the mean of the class tokens after that norm.
    With `biases`, their initial values, logits are one score plus a bias for each class.
    """

    encoder: Encoder
    classes: int
    pool: str = "mean"
    biases: tuple[float, ...] = ()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """Images [B, *space, C] float to features [B, D] and logits [B, classes], float32."""
        # [B, prefix + L, D] to [B, D]
        features = pooled(self.encoder(images, train=train), self.pool, prefix=self.encoder.prefix)
        if self.pool == "mean":
            features = LayerNorm(name="fc_norm")(features)
        if self.biases:
            score = nn.Dense(1, use_bias=False, kernel_init=head_init, name="head")(features)
            bias = self.param("head_bias", lambda key: jnp.array(self.biases, jnp.float32))
            return features, score + bias  # [B, 1] + [classes]
        head = nn.Dense(self.classes, kernel_init=head_init, name="head")
        return features, head(features)  # float32: in bfloat16, close logits would tie
