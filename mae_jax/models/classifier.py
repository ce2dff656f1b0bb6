"""An encoder with a linear classifier on top, as it is fine-tuned (arXiv 2111.06377, A.1)."""

import jax
from flax import linen as nn

from mae_jax.models.encoder import Encoder, pooled
from mae_jax.models.norm import LayerNorm

head_init = nn.initializers.normal(2e-5)


class Classifier(nn.Module):
    """With `pool` 'mean', the mean of the patch tokens and a norm of its own, which stands in for
    the encoder's last one; with 'cls', the mean of the class tokens after that.
    """

    encoder: Encoder
    classes: int
    pool: str = "mean"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """Images [B, *space, C] float to features [B, D] and logits [B, classes], float32."""
        features = pooled(self.encoder(images, train=train), self.pool, prefix=self.encoder.prefix)
        if self.pool == "mean":
            features = LayerNorm(name="fc_norm")(features)
        head = nn.Dense(self.classes, kernel_init=head_init, name="head")
        return features, head(features)  # float32, or close classes would tie
