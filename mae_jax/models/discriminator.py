"""The joint discriminator of bidirectional GANs (arXiv 1605.09782, 1606.00704), which classifies
pairs of an image and a latent vector. Its convolutions follow DCGAN (1511.06434).

LayerNorm over the channels replaces BatchNorm, so that a pair's logit does not depend on the other
pairs of its batch.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.norm import LayerNorm


class Discriminator(nn.Module):
    """Strided convolutions halve the image until its shorter side is at most 4; dense layers then
    combine its features with those of the latent vector.
    """

    width: int
    """Channels of the first convolution; each further one doubles them, up to 8 times as many."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, latents: jax.Array) -> jax.Array:
        """Images [B, H, W, C] and latents [B, Z] to logits [B] float32. A positive logit classifies
        the pair as a real image with its encoding.
        """
        act = lambda x: nn.leaky_relu(x, 0.2)
        dense = lambda width, name: nn.Dense(width, dtype=self.dtype, name=name)
        x, layer, width = images, 0, self.width
        while layer == 0 or min(x.shape[1:3]) > 4:
            width = self.width * min(2**layer, 8)
            x = nn.Conv(width, (4, 4), (2, 2), dtype=self.dtype, name=f"down_{layer}")(x)
            if layer > 0:  # not after the first, where it would remove the contrast of the image
                x = LayerNorm(dtype=self.dtype, name=f"norm_{layer}")(x)
            x, layer = act(x), layer + 1
        x = act(dense(width, "image")(x.reshape(len(x), -1)))  # of [B, h w C]
        z = act(dense(width, "latent_2")(act(dense(width, "latent_1")(latents))))
        x = act(dense(width, "joint")(jnp.concatenate([x, z], axis=1)))  # of [B, 2 width]
        return nn.Dense(1, name="logit")(x.astype(jnp.float32))[:, 0]
