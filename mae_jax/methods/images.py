"""Base class of methods with one image encoder: features, and loading of pre-trained weights."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.models.encoder import Encoder, check_pool, make_encoder, pooled
from mae_jax.models.limits import chosen
from mae_jax.ops.patches import grid_of, patch_sides
from mae_jax.ops.pixels import normalize
from mae_jax.ops.resample import resample_channels, resample_positions
from mae_jax.types import Adapt, Batch, Extra, Method, Params, UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ImageMethod(Method):
    """A method with an image encoder, whose parameters are params['encoder']."""

    encoder: Encoder
    pool: str
    """How tokens are pooled to features, see `models.encoder.pooled`."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Mean and standard deviation of the pixels in [0, 1], one number or one per channel."""

    @staticmethod
    def fields(
        *, encoder: str, pool: str, mean: Sequence[float], std: Sequence[float], dtype: str, **more
    ) -> dict[str, Any]:
        """Builds the fields above from the arguments that all `make` functions share.

        Args:
            encoder: spec string of the encoder.
            pool: 'cls', 'cls_concat' or 'mean'.
            mean, std: of the pixels in [0, 1], one number or one per channel.
            dtype: of the encoder's computations, 'float32' or 'bfloat16'.
            more: further arguments of the encoder.

        Raises:
            UserError: an unknown name or value.
        """
        network = make_encoder(encoder, pool=pool, dtype=dtype, **more)
        return dict(encoder=network, pool=pool, mean=tuple(mean), std=tuple(std))

    @property
    def feature_width(self) -> int:
        """Number of values of an image's features."""
        return self.encoder.width * (self.encoder.prefix if self.pool == "cls_concat" else 1)

    def loads(self) -> Mapping[str, str]:
        """All encoders. Learned positions keep their sine-cosine initialization if not loaded."""
        return dict.fromkeys(self.encoders(), "^positions$")

    def encoders(self) -> Mapping[str, Any]:
        """The method's encoder."""
        return {"params/encoder": self.encoder}

    def offers(self) -> tuple[str, ...]:
        """'features' [B, D] float32 and 'tokens' [B, prefix + L, D] of unmasked images. With
        pool='cls_concat' features have `prefix` times as many values.

        With encoders that return their layers also 'features/*' [B, layers, D] and 'tokens/*',
        and of one layer 'features/2', 'features/-1/mean' (see `layer_output`) or 'tokens/2'; only
        the latter where layers differ in shape.
        """
        names, count = ("features", "tokens"), self.encoder.layers
        layers = range(count) if not self.encoder.layers_alike else ("*",) if count else ()
        return (*names, *(f"{name}/{layer}" for name in names for layer in layers))

    def predict(
        self, params: Params, extra: Extra, batch: Batch, *, outputs: Sequence[str]
    ) -> dict[str, jax.Array]:
        """See `offers`."""
        images = self.normalize(batch["image"])
        tokens = self.tokens(params, images)  # [B, prefix + L, D]
        available = {"tokens": tokens, "features": self.pooled(tokens)}
        available |= self.of_layers(params, images, outputs)
        return {name: available[name] for name in outputs}

    def of_layers(
        self, params: Params, images: jax.Array, outputs: Sequence[str]
    ) -> dict[str, jax.Array]:
        """Those of the named outputs that are of inner layers, see `offers`.

        Args:
            images: [B, *space, C] normalized.

        Raises:
            UserError: a name that is not of this form, or a layer or pool that does not exist.
        """
        asked = {name: parse_layers(name, self.encoder) for name in outputs if "/" in name}
        if not asked:
            return {}
        layers = sorted({layer for numbers, _ in asked.values() for layer in numbers})
        tokens = dict(zip(layers, self.layer_tokens(params, images, layers), strict=True))

        def output(name: str) -> jax.Array:
            numbers, pool = asked[name]
            rows = [tokens[number] for number in numbers]  # [B, prefix + L, D] each
            if name.startswith("features/"):
                rows = [self.pooled(x, pool) for x in rows]  # [B, D] each
            # [B, layers, ...]. Not jnp.stack, which jax2onnx does not support.
            return jnp.concatenate([x[:, None] for x in rows], 1) if "*" in name else rows[0]

        return {name: output(name) for name in asked}

    def layer_tokens(
        self, params: Params, images: jax.Array, layers: Sequence[int]
    ) -> list[jax.Array]:
        """Tokens [B, prefix + L, D] of layers of the encoder, see `Encoder.layer_tokens`."""
        if not layers:
            return []
        variables = {"params": params["encoder"]}
        return self.encoder.apply(variables, images, layers, method="layer_tokens")

    def normalize(self, images: jax.Array, *, pixels: int = 1) -> jax.Array:
        """Normalizes uint8 images [B, *space, C], or patches [B, L, pixels * C], to float32."""
        return normalize(images, self.mean, self.std, pixels=pixels)

    def tokens(self, params: Params, images: jax.Array) -> jax.Array:
        """Encodes normalized images [B, *space, C] as tokens [B, prefix + L, D]."""
        return self.encoder.apply({"params": params["encoder"]}, images)

    def pooled(self, tokens: jax.Array, pool: str = "") -> jax.Array:
        """Pools tokens [B, prefix + L, D] to features [B, `feature_width`] float32, by `self.pool`
        or by another pool.
        """
        return pooled(tokens, pool or self.pool, prefix=self.encoder.prefix)

    def features(self, params: Params, images: jax.Array) -> jax.Array:
        """Encodes normalized images [B, *space, C] as features [B, D] float32."""
        return self.pooled(self.tokens(params, images))

    def adapt(self, shape: Sequence[int], old: Sequence[int] | None) -> Adapt:
        """Resamples the patch embedding to another number of channels, and learned positions to
        another grid. If `old` is unknown, the old grid is assumed to be square.

        Raises:
            UserError: `old` and `shape` differ in their number of axes.
        """
        encoder, rank = self.encoder, len(shape) - 1
        if old is not None and len(old) != len(shape):
            raise UserError(
                f"the encoder was trained on images of {len(old) - 1} dimensions, {list(old)}, and "
                f"these have {rank}, {list(shape)}: choose weights of such images"
            )
        area, prefix = math.prod(patch_sides(encoder.stem, rank)), encoder.prefix

        def resample(path: str, array: np.ndarray):
            if path == "embed/kernel" and array.shape[0] % area == 0:  # [prod(stem) * C, D]
                return resample_channels(jnp.asarray(array), array.shape[0] // area, shape[-1])
            if path == "positions":  # [prefix + L, D]
                side = round((len(array) - prefix) ** (1 / rank))
                old_grid = grid_of(old[:-1], encoder.patch) if old else (side,) * rank
                if len(array) == prefix + math.prod(old_grid):
                    grid = grid_of(shape[:-1], encoder.patch)
                    return resample_positions(jnp.asarray(array), old_grid, grid, prefix=prefix)
            if path in ("positions_time", "positions_space") and old:  # [T, D], [L / T, D]
                part = slice(0, 1) if path == "positions_time" else slice(1, None)
                grids = [grid_of(one[:-1], encoder.patch)[part] for one in (old, shape)]
                return resample_positions(jnp.asarray(array), *grids, prefix=0)
            return array

        return resample


def parse_layers(output: str, encoder: Encoder) -> tuple[list[int], str]:
    """Numbers of the layers of an output such as 'features/-1/mean' or 'tokens/*', and its pool, ''
    if it names none.

    Raises:
        UserError: another form, or a layer or pool that the encoder does not have.
    """
    form = re.fullmatch(r"(?:features/(\*|-?\d+)(?:/(\w+))?|tokens/(\*|-?\d+))", output)
    if not form:
        raise UserError(
            f"output {output!r}: write features/LAYER, features/LAYER/POOL or tokens/LAYER"
        )
    number, pool = form[1] or form[3], form[2] or ""
    if pool:
        check_pool(pool, encoder.prefix, "the encoder")
    return chosen("layer", encoder.layers, None if number == "*" else [int(number)]), pool
