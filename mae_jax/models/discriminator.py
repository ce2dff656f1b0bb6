"""A network that judges pairs of an image and a latent vector: the joint discriminator of
bidirectional GANs (arXiv 1605.09782, 1606.00704), convolutional as in DCGAN (1511.06434).

Normalization is of the channels at each site alone, so that no pair is judged by the others of its
batch.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.norm import LayerNorm


class Discriminator(nn.Module):
    """Convolutions halve the image until a side has 4 sites or fewer; dense layers then look at
    what they found and at the latent vector together.
    """

    width: int
    """Channels of the first convolution; each further one has twice as many, up to 8 times."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, latents: jax.Array) -> jax.Array:
        """Images [B, H, W, C] and latents [B, Z] to logits [B] float32, positive for pairs that
        look as if the image was real and the latent vector made from it.
        """
        act = lambda x: nn.leaky_relu(x, 0.2)
        dense = lambda width, name: nn.Dense(width, dtype=self.dtype, name=name)
        x, layer, width = images, 0, self.width
        while layer == 0 or min(x.shape[1:3]) > 4:
            width = self.width * min(2**layer, 8)
            x = nn.Conv(width, (4, 4), (2, 2), dtype=self.dtype, name=f"down_{layer}")(x)
            if layer > 0:  # a norm of the first would hide how strong edges and colors are
                x = LayerNorm(dtype=self.dtype, name=f"norm_{layer}")(x)
            x, layer = act(x), layer + 1
        x = act(dense(width, "image")(x.reshape(len(x), -1)))
        z = act(dense(width, "latent_2")(act(dense(width, "latent_1")(latents))))
        x = act(dense(width, "joint")(jnp.concatenate([x, z], axis=1)))
        return nn.Dense(1, name="logit")(x.astype(jnp.float32))[:, 0]
