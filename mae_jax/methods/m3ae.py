"""Multimodal masked autoencoders (M3AE, Geng et al. 2022, arXiv 2205.14204): one transformer
encodes the visible patches of an image and the visible tokens of its text, and a decoder predicts
the masked ones of both.

Each example may have an image, a text, or both. The encoder of images alone is a plain ViT.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mae_jax.methods import texts
from mae_jax.methods.masked import MaskedMethod, masked_options
from mae_jax.models.decoder import decoder_fields
from mae_jax.models.joint import JointAutoencoder, JointDecoder, TextEmbedding
from mae_jax.models.vit import ViT
from mae_jax.ops import losses, masking
from mae_jax.ops.gather import take_tokens
from mae_jax.ops.masking import Mask
from mae_jax.ops.patches import grid_of
from mae_jax.ops.texts import cross_entropy, draw, whole
from mae_jax.types import Batch, Extra, Output, Params, UserError, with_image

TEXT_OUTPUTS = ("text_features", "joint_features", "text_correct", "text_masked", "patch_error")
"""Outputs that need texts, see `JointMasking.offers`."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class JointMasking(MaskedMethod):
    """The method; `make` documents the fields."""

    text: TextEmbedding
    decoder: JointDecoder
    length: int
    text_mask_ratio: float
    image_weight: float
    text_weight: float

    @property
    def model(self) -> JointAutoencoder:
        """Encoder, embedding of text tokens, and decoder."""
        return JointAutoencoder(self.encoder, self.text, self.decoder)

    @property
    def unit(self) -> int | tuple[int, ...]:
        """The encoder's patch."""
        return self.encoder.patch

    def example(self, image_shape: Sequence[int]) -> dict[str, jax.ShapeDtypeStruct]:
        """See `Method`."""
        return super().example(image_shape) | texts.example(self.length)

    def reads(self, outputs: Sequence[str]) -> tuple[str, ...]:
        """See `Method`."""
        return (*self.inputs, *(texts.FIELDS if {*TEXT_OUTPUTS} & {*outputs} else ()))

    def vocabulary_size(self) -> int:
        """See `Method`."""
        return self.text.vocabulary

    def offers(self) -> tuple[str, ...]:
        """Those of the image alone, see `ImageMethod`; 'text_features' [B, D] float32 of the text
        alone, 'joint_features' [B, D] of both; and under masks that are fixed for each place in a
        batch: 'text_masked' [B, T] bool, 'text_correct' [B, T] bool, masked tokens that are
        predicted correctly with the whole image, 'patch_error' [B] float32 with the whole text.
        """
        return (*super().offers(), *TEXT_OUTPUTS)

    def embeddings(self) -> tuple[str, ...]:
        """See `Method`."""
        return ("text_features", "joint_features")

    def init_params(self, key: jax.Array, images: jax.Array, mask: Mask) -> Params:
        """See `MaskedMethod`."""
        nothing = jnp.zeros((len(images), self.length), jnp.int32)
        words = draw(key, nothing > 0, self.text_mask_ratio)
        has_image = jnp.ones(len(images), bool)
        rows = (self.normalize(images), has_image, nothing, mask, words)
        return self.model.init(key, *rows, values=self.values(images))["params"]

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """The weighted sum of the mean error of masked patches and of the cross-entropy of masked
        tokens, each 0 if nothing of its kind is masked in the batch.
        """
        images, has_image = batch["image"], with_image(batch)
        text, valid = texts.of_batch("m3ae", batch, self.length)
        keys = jax.random.split(key)
        mask = self.draw_mask(keys[0], images, step, extra)
        words = draw(keys[1], valid, self.text_mask_ratio)
        rows = (images, has_image, text, mask, words)
        prediction, logits = self.predictions(params, *rows, masked_only=self.loss_on == "masked")
        target = self.targets(extra, images, mask)  # [B, K, V]
        errors = self.target.errors(prediction, target, self.loss_kind)  # [B, K, ...]
        image_loss = losses.masked_mean(errors, self.in_loss(mask) & has_image[:, None])
        text_loss, accuracy = cross_entropy(logits, words.sort(text), words.masked)
        metrics = {"image_loss": image_loss, "text_loss": text_loss, "text_accuracy": accuracy}
        loss = self.image_weight * image_loss + self.text_weight * text_loss
        return Output(loss, extra, metrics | self.target.metrics(target))

    def predictions(self, params: Params, images, has_image, text, mask, words, **options):
        """Patches and logits of text tokens, see `JointAutoencoder`. Visible patches are gathered
        as bytes before they are normalized.
        """
        options |= dict(values=self.values(images), normalize=self.normalize)
        rows = (images, has_image, text, mask, words)
        return self.model.apply({"params": params}, *rows, **options)

    def reconstruct(self, params: Params, images: jax.Array, mask: Mask) -> jax.Array:
        """Predictions [B, L, V] of all patches from images alone."""
        return self.reconstruct_with(params, images, mask, *self.no_text(len(images)))

    def reconstruct_for_loss(self, params: Params, images: jax.Array, mask: Mask) -> jax.Array:
        """Predictions [B, K, V] of the patches that `take` selects, from images alone."""
        rows = (images, mask, *self.no_text(len(images)))
        return self.reconstruct_with(params, *rows, masked_only=self.loss_on == "masked")

    def reconstruct_with(self, params: Params, images, mask, text, valid, **options) -> jax.Array:
        """Predictions [B, L, V] of patches from the visible ones and whole texts [B, T]."""
        rows = (images, jnp.ones(len(images), bool), text, mask, whole(valid))
        return self.predictions(params, *rows, **options)[0]

    def take(self, patches: jax.Array, mask: Mask) -> jax.Array:
        """The patches that the loss predicts, [B, L, ...] to [B, K, ...]."""
        if self.loss_on == "all":
            return patches
        return take_tokens(patches, mask.masked, kind=self.decoder.gather)

    def in_loss(self, mask: Mask) -> jax.Array:
        """[B, K] True: every patch that `take` selects counts in the loss."""
        return jnp.ones_like(mask.masked if self.loss_on == "masked" else mask.mask, bool)

    def predict(
        self, params: Params, extra: Extra, batch: Batch, *, outputs: Sequence[str]
    ) -> dict[str, jax.Array]:
        """See `offers`."""
        plain = [name for name in outputs if name not in TEXT_OUTPUTS]
        found = super().predict(params, extra, batch, outputs=plain) if plain else {}
        if len(plain) == len(outputs):
            return found
        images, has_image = batch["image"], with_image(batch)
        text, valid = texts.of_batch("m3ae", batch, self.length)
        keys = jax.random.split(jax.random.key(0))
        if "text_features" in outputs:
            # A single patch, to which nothing attends, in place of the image.
            patches = math.prod(grid_of(images.shape[1:-1], self.unit))
            one = masking.from_scores(jnp.zeros((len(text), patches)), 1)
            rows = (images, has_image & False, text, one, whole(valid))
            found["text_features"] = self.encoded(params, *rows)
        if "joint_features" in outputs:
            both = (images, has_image, text, None, whole(valid))
            found["joint_features"] = self.encoded(params, *both)
        if {"text_correct", "text_masked"} & {*outputs}:
            words = draw(keys[1], valid, self.text_mask_ratio)
            logits = self.predictions(params, images, has_image, text, None, words)[1]
            right = words.masked & (jnp.argmax(logits, axis=-1) == words.sort(text))
            found |= {
                "text_masked": words.unsort(words.masked),
                "text_correct": words.unsort(right),
            }
        if "patch_error" in outputs:
            mask = self.draw_mask(keys[0], images, self.total_steps, extra)
            rows, options = (images, mask, text, valid), dict(masked_only=self.loss_on == "masked")
            prediction = self.reconstruct_with(params, *rows, **options)
            targets = self.targets(extra, images, mask)
            errors = self.target.errors(prediction, targets, self.loss_kind)
            found["patch_error"] = errors.reshape(len(images), -1).mean(axis=1)
        return {name: found[name] for name in outputs}

    def encoded(self, params: Params, *rows) -> jax.Array:
        """Features [B, D] float32 of images and texts, whose arguments are those of
        `JointAutoencoder.encode`. With pool='mean', that of the visible patches and tokens.
        """
        options = dict(normalize=self.normalize, method="encode")
        tokens, valid = self.model.apply({"params": params}, *rows, **options)
        if self.pool != "mean":
            return self.pooled(tokens)
        start = self.encoder.prefix
        weights = valid[:, start:, None].astype(jnp.float32)  # [B, K + S, 1]
        return jnp.sum(tokens[:, start:] * weights, axis=1) / jnp.maximum(weights.sum(axis=1), 1)

    def no_text(self, count: int) -> tuple[jax.Array, jax.Array]:
        """Tokens [B, T] of `count` empty texts, and that all are padding."""
        return (text := jnp.zeros((count, self.length), jnp.int32)), text > 0

    def draw(
        self,
        params: Params,
        extra: Extra,
        batch: Batch,
        *,
        key: jax.Array | None = None,
        mask: Mask | None = None,
    ) -> dict[str, jax.Array]:
        """Draws reconstructions from the visible patches with the text of the image, with that of
        the next image in the batch, and without text; of batches without texts, see `MaskedMethod`.
        """
        if not {*texts.FIELDS} <= {*batch}:
            return super().draw(params, extra, batch, key=key, mask=mask)
        images, own = batch["image"], texts.of_batch("m3ae", batch, self.length)
        if mask is None:
            mask = self.draw_mask(jax.random.key(0) if key is None else key, images, extra=extra)
        conditions = {
            "with its text": own,
            "with the text of the next image": [jnp.roll(x, -1, axis=0) for x in own],
            "without text": self.no_text(len(images)),
        }
        rows = {}
        for name, text in conditions.items():
            raw = self.reconstruct_with(params, images, mask, *text).astype(jnp.float32)
            *others, (_, last) = self.drawn(raw, extra, images, mask.mask).items()
            # Of the network's output, only the row with the visible patches pasted in.
            rows = rows or {label: row for label, row in others if "network" not in label}
            rows[f"predicted {name}"] = last
        return rows


def make(
    *,
    vocabulary: int,
    length: int = 64,
    encoder: str = "vit(B, patch=16)",
    decoder_width: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
    decoder_attention: str = "auto",
    decoder_remat: str = "none",
    decoder_gather: str = "take",
    mask: str = "random",
    mask_ratio: float = 0.75,
    text_mask_ratio: float = 0.75,
    image_weight: float = 1.0,
    text_weight: float = 0.5,
    loss: str = "mse",
    target: str = "pixels(normalize=False)",
    loss_on: str = "masked",
    pool: str = "cls",
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> JointMasking:
    """Builds a multimodal masked autoencoder. Arguments that are not listed are those of `mae`.

    Args:
        vocabulary: number of different tokens of the texts.
        length: number of tokens T of a text with its padding, that of the source.
        encoder: spec string of a ViT, which also encodes the tokens.
        decoder_width, decoder_depth, decoder_heads, decoder_attention, decoder_remat,
            decoder_gather: the decoder, see `methods.mae.make`.
        mask, mask_ratio: of the patches.
        text_mask_ratio: expected fraction of masked tokens of a text, without padding, in [0, 1).
        image_weight, text_weight: factors of the two losses, at least 0, one of them positive.
        loss, target, loss_on: of the patches, see `methods.mae.make`.
        pool, mean, std, dtype: see `methods.mae.make`.

    Raises:
        UserError: an unknown or invalid value.
    """
    options = masked_options(
        mask=mask, mask_ratio=mask_ratio, target=target, loss=loss, loss_on=loss_on
    )
    ratios = {"text_mask_ratio": text_mask_ratio}
    texts.check("m3ae", vocabulary=vocabulary, length=length, ratios=ratios)
    if min(image_weight, text_weight) < 0 or not image_weight + text_weight:
        raise UserError(
            f"m3ae: image_weight={image_weight} and text_weight={text_weight} must not be "
            "negative, and one of them must be positive"
        )
    options |= JointMasking.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype)
    network = options["encoder"]
    if not isinstance(network, ViT) or network.mask_tokens or network.relative_positions:
        raise UserError(
            f"m3ae: encoder={encoder} cannot encode text tokens: choose a vit without mask_tokens "
            "and relative_positions"
        )
    fields = decoder_fields(
        width=decoder_width,
        depth=decoder_depth,
        heads=decoder_heads,
        attention=decoder_attention,
        remat=decoder_remat,
        gather=decoder_gather,
        dtype=dtype,
    )
    return JointMasking(
        text=TextEmbedding(vocabulary, network.width),
        decoder=JointDecoder(**fields, vocabulary=vocabulary),
        length=length,
        text_mask_ratio=text_mask_ratio,
        image_weight=image_weight,
        text_weight=text_weight,
        **options,
    )
