"""The interface that all encoders share, and their construction from spec strings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.ops.masking import Mask
from mae_jax.ops.patches import one_or_all
from mae_jax.spec import build, check_choice
from mae_jax.types import UserError


class Loadable(nn.Module):
    """A network that `init_from` can load from a run or from published weights."""

    @property
    def architecture(self) -> tuple:
        """The options that must be equal for weights to be loaded: those that determine the shapes
        and the use of the parameters, not those of training or of the kernels.
        """
        kind = type(self).__name__
        raise UserError(f"networks of the kind {kind} are not loaded: define their `architecture`")

    def described(self, args: Mapping[str, Any]) -> str:
        """Spec string of the network of this kind in the weights of a method with arguments
        `args`."""
        raise NotImplementedError

    def arrays(self, params: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
        """Selects the arrays of a network of this kind among all weights of a method.

        Args:
            params, extra: path -> array.

        Returns:
            Path in the network -> array; {} if the weights have no such network.
        """
        raise NotImplementedError


class Encoder(Loadable):
    """Encodes images [B, *space, C] as tokens [B, prefix + L, D]: `prefix` tokens for the whole
    image (class tokens), then one for each patch, in row-major order.

    Subclasses also define, as fields or properties: `width`, D; `depth`, the number of blocks;
    `patch`, the side of a patch in pixels, or one side for each axis; `dtype` of the computations.
    """

    # Not annotated: an annotation would make it a dataclass field of every encoder.
    prefix = 0
    """Number of tokens in front of the patch tokens."""
    mask_tokens = False
    """Whether the output includes masked patches, which were encoded as mask tokens."""
    layers = 0
    """Number of layers whose tokens `layer_tokens` returns; 0: it returns none."""
    layers_alike = True
    """Whether the tokens of all layers have one shape."""
    learned_positions = False
    """Whether positions are parameters, which then fit only one image size."""

    @property
    def stem(self) -> int | tuple[int, ...]:
        """Side of the first layer's patches in pixels, or one side for each axis."""
        return self.patch

    def described(self, args: Mapping[str, Any]) -> str:
        """The method's encoder, see `Loadable`."""
        return args["encoder"]

    def arrays(self, params: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters below 'encoder/', see `Loadable`."""
        part = "encoder/"
        return {k.removeprefix(part): v for k, v in params.items() if k.startswith(part)}

    def __call__(
        self, images: jax.Array, mask: Mask | None = None, *, train: bool = False, normalize=None
    ) -> jax.Array:
        """Encodes whole images, or their visible patches only.

        Args:
            images: [B, *space, C] float, or uint8 with `normalize`.
            mask: which patches are visible; None: all.
            train: applies stochastic depth, which needs the random stream 'drop_path'.
            normalize: converts uint8 images or patches to float, as `ops.pixels.normalize` with
                its mean and std bound.

        Returns:
            [B, prefix + K, D] tokens after the final norm: the prefix, then the K visible patches
            in the order of `mask.keep`. Without a mask, or with `mask_tokens`, all L patches
            follow in image order.
        """
        raise NotImplementedError

    def fused(
        self,
        images: jax.Array,
        mask: Mask | None,
        fuse: Callable[[list[jax.Array]], jax.Array],
        *,
        depths: Sequence[int],
        normalize=None,
    ) -> jax.Array:
        """Encodes images from the tokens of several blocks instead of the last one's.

        Args:
            images, mask, normalize: as in `__call__`.
            fuse: from the chosen tokens, a list of [B, prefix + K, D], to [..., prefix + K, D].
            depths: how many blocks lie before each of these: 0 is the embedding of the patches;
                negative ones count from the end, -1 is the last block's output.

        Returns:
            [..., prefix + K, D] after the final norm.
        """
        raise UserError(f"encoders of the kind {type(self).__name__} have no tokens to fuse")

    def layer_width(self, layer: int) -> int:
        """Channels of the tokens of a layer, a number in [0, `layers`)."""
        return self.width

    def layer_tokens(self, images: jax.Array, layers: Sequence[int]) -> list[jax.Array]:
        """Tokens of inner layers after the final norm, [B, prefix + L, D] each: the output of the
        encoder if the layer were its last one.

        Args:
            images: [B, *space, C] float.
            layers: numbers of the layers, ascending, in [0, `layers`).
        """
        raise UserError(f"encoders of the kind {type(self).__name__} return no layers")

    def maps(
        self, images: jax.Array, *, train: bool = False, taps: Sequence[int] | None = None
    ) -> list[jax.Array]:
        """Intermediate feature maps [B, *grid, width], for dense prediction heads: outputs of
        blocks or stages, before any norm.

        Args:
            images: [B, *space, C] float.
            train: as in `__call__`.
            taps: indices of the blocks or stages; None: all.
        """
        raise UserError(f"encoders of the kind {type(self).__name__} have no feature maps")

    def attention_weights(
        self, images: jax.Array, *, taps: Sequence[int] | None = None
    ) -> list[jax.Array]:
        """Attention weights [B, heads, T, T] float32 (query, key) of each block.

        Args:
            images: [B, *space, C] float.
            taps: indices of the blocks; None: all.
        """
        raise UserError(f"encoders of the kind {type(self).__name__} have no attention")


POOLS = ("cls", "mean", "cls_concat")
DTYPES = ("float32", "bfloat16")


def make_encoder(text: str, *, pool: str, dtype: str, **more: Any) -> Encoder:
    """Builds the encoder of a spec string, e.g. 'vit(B, patch=16)' or 'convnext(T)'.

    Args:
        text: the spec string.
        pool: how its tokens will be pooled, see `pooled`; checked here for all methods.
        dtype: of the computations, 'float32' or 'bfloat16'.
        more: further arguments of the encoder, which the config holds outside of the spec string.

    Raises:
        UserError: an unknown name or value, or a pool of class tokens without any.
    """
    check_choice("pool", pool, POOLS)
    check_choice("dtype", dtype, DTYPES)
    network = build(text, "models", Encoder, dtype=jnp.dtype(dtype), **more)
    check_pool(pool, network.prefix, text)
    return network


def check_pool(pool: str, prefix: int, text: str) -> None:
    """Checks that tokens can be pooled.

    Args:
        pool: see `pooled`.
        prefix: number of class tokens.
        text: the encoder, for the message.

    Raises:
        UserError: an unknown pool, or a pool of class tokens without any.
    """
    check_choice("pool", pool, POOLS)
    if pool != "mean" and prefix == 0:
        raise UserError(f"pool={pool!r} needs a class token, and {text} has none: set pool='mean'")


def check_tiles(network: Encoder, text: str, tile: int) -> None:
    """Checks that an encoder can train on tiles and then encode whole images.

    Args:
        text: spec string of the encoder, for the message.
        tile: side of the tiles in pixels.

    Raises:
        UserError: a tile that is not a multiple of the encoder's patch, or an encoder with learned
            positions, which fit only one image size.
    """
    if tile < 1 or any(tile % side for side in one_or_all(network.patch)):
        raise UserError(
            f"tile={tile} is not a positive multiple of {network.patch}, the patch of {text}"
        )
    if network.learned_positions:
        raise UserError(
            f"{text} would learn the positions in a tile and have none for whole images: leave "
            "out learned_positions"
        )


def pooled(tokens: jax.Array, pool: str, *, prefix: int) -> jax.Array:
    """Pools tokens [B, prefix + L, D] to features float32: [B, prefix * D] for 'cls_concat', and
    [B, D] otherwise.

    Args:
        pool: 'cls', the mean of the first `prefix` tokens; 'cls_concat', these side by side; or
            'mean', the mean of the patch tokens.
        prefix: number of class tokens of the encoder.
    """
    tokens = tokens.astype(jnp.float32)
    if pool == "cls_concat":
        return tokens[:, :prefix].reshape(len(tokens), -1)  # [B, prefix, D] to [B, prefix * D]
    chosen = tokens[:, :prefix] if pool == "cls" else tokens[:, prefix:]  # [B, prefix or L, D]
    return chosen[:, 0] if chosen.shape[1] == 1 else chosen.mean(axis=1)
