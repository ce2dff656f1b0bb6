"""Vector-quantized autoencoders (VQ-VAE, van den Oord et al. 2017, arXiv 1711.00937): the encoding
of each patch is replaced by the nearest of a few learned codes, and the decoder reconstructs the
image from the codes. Gradients pass the quantization unchanged.

The codes are moving averages of their encodings, as in appendix A.1. The target `vq` of masked
autoencoders predicts the codes of a trained VQ-VAE.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mae_jax.methods.images import ImageMethod
from mae_jax.models import tokenizer
from mae_jax.models.tokenizer import Tokenizer
from mae_jax.ops import codebook, pixels
from mae_jax.ops.patches import grid_of
from mae_jax.types import Batch, Extra, Output, Params, Pictures, UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class VQVAE(ImageMethod):
    """The method; `make` documents the fields."""

    tokenizer: Tokenizer
    """Its encoder is the method's; in shapes, K is its number of codes and Z their width."""
    commitment: float
    decay: float
    revive: float

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initializes parameters for images of this size and number of channels, and a random
        codebook, which the first step replaces.
        """
        keys, images = jax.random.split(key), self.normalize(batch["image"])
        codes = self.tokenizer.codes
        book = jax.random.normal(keys[1], (codes, self.tokenizer.code_width))
        zeros = jnp.zeros(codes)
        collections = {"codes": book, "counts": zeros, "new": zeros, "sums": jnp.zeros_like(book)}
        return self.network(images).init(keys[0], images)["params"], {"codebook": collections}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """The mean squared error of normalized pixels, plus `commitment` times that of encodings
        from their codes.

        The metrics are these two errors, 'reconstruction' and 'commitment', and `codebook.usage`.
        """
        images = self.normalize(batch["image"])  # [B, *space, C]
        vectors = self.vectors(params, self.tokens(params, images))  # [B, L, Z]
        constant = jax.lax.stop_gradient(vectors).reshape(-1, vectors.shape[-1])  # [B L, Z]
        book = dict(extra["codebook"])
        # Only in the first of several microbatches: the codes stay the same for the others.
        share = jnp.where(book["new"].sum() == 0, self.revive, -1)
        book["codes"], book["counts"] = codebook.revived(
            key, book["codes"], book["counts"], constant, share
        )
        index = codebook.nearest(constant, book["codes"])  # [B L]
        quantized = book["codes"][index].reshape(vectors.shape)
        decoded = self.decode(params, codebook.straight_through(vectors, quantized), images)
        errors = {
            "reconstruction": jnp.square(decoded - images).mean(),
            "commitment": jnp.square(vectors - quantized).mean(),
        }
        # Added up over microbatches; `after_update` moves the codes.
        new, sums = codebook.statistics(constant, index, self.tokenizer.codes)
        book["new"], book["sums"] = book["new"] + new, book["sums"] + sums
        loss = errors["reconstruction"] + self.commitment * errors["commitment"]
        usage = codebook.usage(index, self.tokenizer.codes)
        return Output(loss, {"codebook": book}, errors | usage)

    def after_update(self, params: Params, extra: Extra, step) -> Extra:
        """Moves the codes by the sums over the batch, and resets these."""
        book = extra["codebook"]
        codes, counts = codebook.averaged(**book, decay=self.decay)
        zeros = {name: jnp.zeros_like(book[name]) for name in ("new", "sums")}
        return {"codebook": {"codes": codes, "counts": counts, **zeros}}

    def offers(self) -> tuple[str, ...]:
        """The outputs of `ImageMethod`, and 'codes' [B, L] int32, one for each patch."""
        return (*super().offers(), "codes")

    def predict(
        self, params: Params, extra: Extra, batch: Batch, *, outputs: Sequence[str]
    ) -> dict[str, jax.Array]:
        """See `offers`."""
        others = tuple(name for name in outputs if name != "codes")
        predictions = super().predict(params, extra, batch, outputs=others)
        if "codes" in outputs:
            tokens = self.tokens(params, self.normalize(batch["image"]))  # [B, prefix + L, D]
            vectors = self.vectors(params, tokens)  # [B, L, Z]
            predictions["codes"] = codebook.nearest(vectors, extra["codebook"]["codes"])
        return predictions

    def pictures(self) -> Pictures:
        """Draws the original and its reconstruction from the codes."""
        return self._draw

    def _draw(self, params, extra, batch, *, key=None, mask=None) -> dict[str, jax.Array]:
        images = self.normalize(batch["image"])
        (index,) = self.predict(params, extra, batch, outputs=("codes",)).values()
        decoded = self.decode(params, extra["codebook"]["codes"][index], images)
        reconstruction = pixels.to_bytes(decoded, self.mean, self.std)
        return {"original": batch["image"], "reconstruction": reconstruction}

    def network(self, images: jax.Array) -> Tokenizer:
        """The tokenizer for images with as many channels as `images` [B, *space, C]."""
        return self.tokenizer.clone(channels=images.shape[-1])

    def vectors(self, params: Params, tokens: jax.Array) -> jax.Array:
        """Vectors [B, L, Z] before quantization, from tokens [B, prefix + L, D]."""
        return self.tokenizer.apply({"params": params}, tokens, method="vectors")

    def decode(self, params: Params, vectors: jax.Array, images: jax.Array) -> jax.Array:
        """Decodes vectors [B, L, Z] to normalized images of the shape of `images`."""
        grid = grid_of(images.shape[1:-1], self.encoder.patch)
        return self.network(images).apply({"params": params}, vectors, grid, method="decode")


def make(
    *,
    encoder: str = "convnext(widths=(96, 192, 384), depths=(3, 3, 9), stem=4)",
    codes: int = 512,
    code_width: int = 32,
    decoder_width: int = 256,
    commitment: float = 0.25,
    decay: float = 0.99,
    revive: float = 0.03,
    pool: str = "mean",
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> VQVAE:
    """Builds a vector-quantized autoencoder (VQ-VAE).

    Args:
        encoder: spec string of the encoder, whose patch, a power of two, is the side of a code.
        codes: number of codes in the codebook.
        code_width: width of a code.
        decoder_width: channels after the decoder's first upsampling; each further one halves them.
        commitment: weight of the distance between encodings and codes, beta in the paper.
        decay: of the moving averages that the codes are, in [0, 1).
        revive: a code is dead, and replaced by a random encoding of the batch, if its moving
            average of uses is at most this share of the mean over all codes. In [0, 1).
        pool: features from the tokens of the encoder: 'mean' of the patches or 'cls'.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: of the networks' computations, 'float32' or 'bfloat16'.

    Raises:
        UserError: an unknown or invalid value.
    """
    if not 0 <= decay < 1 or not 0 <= revive < 1:
        raise UserError(f"decay={decay} and revive={revive} must be in [0, 1): try 0.99 and 0.03")
    if commitment < 0:
        raise UserError(f"commitment={commitment} must not be negative: the paper's is 0.25")
    sizes = dict(codes=codes, code_width=code_width, decoder_width=decoder_width)
    return VQVAE(
        **VQVAE.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype),
        tokenizer=tokenizer.make(encoder, **sizes, dtype=dtype),
        commitment=commitment,
        decay=decay,
        revive=revive,
    )
