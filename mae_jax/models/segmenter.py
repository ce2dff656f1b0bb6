"""An encoder with a head that classifies each site of its maps."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.conv_norm import batch_norm
from mae_jax.models.encoder import Encoder
from mae_jax.models.pyramid import Pyramid
from mae_jax.models.transposed import TransposedHead
from mae_jax.models.upernet import FCN, UperNet, classifier_init
from mae_jax.models.vit import ViT
from mae_jax.ops.patches import grid_of, patch_sides

HEADS = ("linear", "transposed", "upernet")


class Segmenter(nn.Module):
    """With the head 'linear', BatchNorm without parameters and a linear layer on the tokens after
    the encoder's norm; with 'transposed', transposed convolutions on them, up to single pixels;
    with 'upernet', that head on a pyramid: of a ViT the maps of four blocks, scaled; of other
    encoders the maps of all stages, the finest first.
    """

    encoder: Encoder
    classes: int
    head: str
    width: int
    """Of the head 'upernet'."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> list[jax.Array]:
        """Images [B, *space, C] float to logits [B, *sites, classes] float32; in training also
        those of the auxiliary head of 'upernet', [B, h', w', classes].
        """
        dtype = self.encoder.dtype
        if self.head != "upernet":
            grid = grid_of(images.shape[1:-1], self.encoder.patch)
            tokens = self.encoder(images, train=train)[:, self.encoder.prefix :]
            x = tokens.reshape(len(tokens), *grid, -1)  # of [B, L, D]
        if self.head == "transposed":
            sides = patch_sides(self.encoder.patch, len(grid))
            return [TransposedHead(self.classes, sides, dtype, name="head")(x)]
        if self.head == "linear":
            x = x.astype(jnp.float32)
            x = batch_norm(train, "head_norm", use_scale=False, use_bias=False)(x)
            return [nn.Dense(self.classes, kernel_init=classifier_init, name="head")(x)]
        if isinstance(self.encoder, ViT):
            maps = self.encoder.maps(images, train=train, taps=taps_of(self.encoder.depth))
            maps = Pyramid(dtype, name="pyramid")(maps, train)
        else:
            maps = self.encoder.maps(images, train=train)
        logits = [UperNet(self.classes, self.width, dtype, name="head")(maps, train)]
        if train:
            middle = maps[max(0, len(maps) - 2)]
            logits.append(FCN(self.classes, dtype=dtype, name="auxiliary")(middle, train))
        return logits


def taps_of(depth: int) -> tuple[int, ...]:
    """The blocks after a third, a half, two thirds and all of the depth: (3, 5, 7, 11) of 12, and
    (7, 11, 15, 23) of 24, as published.
    """
    return tuple(max(1, round(depth * share)) - 1 for share in (1 / 3, 1 / 2, 2 / 3, 1))
