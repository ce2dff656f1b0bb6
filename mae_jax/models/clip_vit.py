"""The vision transformer of CLIP (arXiv 2103.00020): a ViT with a norm before its blocks, learned
positions, no bias in the patch embedding, and the activation of OpenAI's weights.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mae_jax.models import vit
from mae_jax.models.norm import LayerNorm
from mae_jax.models.transformer import ACTIVATIONS
from mae_jax.models.vit import ViT
from mae_jax.ops.masking import Mask
from mae_jax.spec import check_choice
from mae_jax.types import UserError

FIELDS = (
    *("width", "depth", "heads", "patch", "mlp_ratio", "drop_path", "learned_positions"),
    *("final_norm", "attention", "remat", "gather", "dtype"),
)
"""Fields of a `ViT` that `make` sets."""


class ClipViT(ViT):
    """The encoder; `make` documents the fields. A bias of the patch embedding exists here, too: it
    is zero where weights without it are loaded.
    """

    @property
    def architecture(self) -> tuple:
        """See `Encoder`."""
        return ("clip_vit", *super().architecture[1:], self.activation, self.epsilon)

    def embedded(self, images: jax.Array, mask: Mask | None, normalize) -> jax.Array:
        """The input of the blocks [B, prefix + K, D], normalized."""
        x = super().embedded(images, mask, normalize)
        return LayerNorm(dtype=self.dtype, epsilon=self.epsilon, name="input_norm")(x)


def make(
    size: str | None = None,
    *,
    patch: int | Sequence[int] = 16,
    width: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    mlp_ratio: float = 4.0,
    activation: str = "quick_gelu",
    epsilon: float = 1e-5,
    drop_path: float = 0.0,
    learned_positions: bool = True,
    final_norm: bool = True,
    attention: str = "auto",
    remat: str = "none",
    gather: str = "take",
    dtype: Any = jnp.float32,
) -> ClipViT:
    """Builds the vision transformer of CLIP.

    Args:
        size, patch, width, depth, heads, mlp_ratio, drop_path, learned_positions, final_norm,
            attention, remat, gather, dtype: see `models.vit.make`.
        activation: of the MLPs, 'quick_gelu' as in OpenAI's weights, or 'gelu'.
        epsilon: of the norms, positive.

    Raises:
        UserError: an unknown or invalid value.
    """
    check_choice("clip_vit: activation", activation, ACTIVATIONS)
    if epsilon <= 0:
        raise UserError(f"clip_vit: epsilon={epsilon} must be positive: CLIP's is 1e-5")
    plain = vit.make(
        size,
        patch=patch,
        width=width,
        depth=depth,
        heads=heads,
        mlp_ratio=mlp_ratio,
        drop_path=drop_path,
        learned_positions=learned_positions,
        final_norm=final_norm,
        attention=attention,
        remat=remat,
        gather=gather,
        dtype=dtype,
    )
    own = {field: value for field, value in vars(plain).items() if field in FIELDS}
    return ClipViT(**own, activation=activation, epsilon=epsilon)
