"""Contrastive learning of images and texts (CLIP, Radford et al. 2021, arXiv 2103.00020) with
masked images (FLIP, Li et al. 2022, arXiv 2212.00794): the embeddings of an image and of its text
are pulled together, and pushed away from those of the other pairs of the global batch. The encoder
sees a random part of each image, and whole images in the last steps. The loss may be that of SigLIP
(arXiv 2303.15343).
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.masks import MaskContext, random, sample
from mae_jax.methods import texts
from mae_jax.methods.images import ImageMethod
from mae_jax.models.text_tower import TextTower
from mae_jax.models.transformer import dense_init
from mae_jax.ops.contrastive import image_text, image_text_sigmoid, unit
from mae_jax.ops.patches import grid_of
from mae_jax.rules import Rules
from mae_jax.spec import build, check_choice
from mae_jax.types import Batch, Extra, Output, Params, UserError, with_image

TEXT_OUTPUTS = ("text_features", "text_embedding")
"""Outputs that read texts alone, see `ImageText.offers`."""
LOSSES = ("infonce", "sigmoid")
MAX_SCALE = 100.0
"""Largest inverse temperature of InfoNCE, as in the authors' code."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ImageText(ImageMethod):
    """The method; `make` documents the fields."""

    text: TextTower
    embedding: int
    mask_ratio: float
    tuning_share: float
    loss_kind: str

    @property
    def projection(self) -> nn.Dense:
        """The layer from the features of images, or of texts, to embeddings."""
        dtype = self.text.dtype
        return nn.Dense(self.embedding, use_bias=False, kernel_init=dense_init, dtype=dtype)

    @property
    def first_step(self) -> int:
        """The step from which on the encoder sees whole images."""
        return round((1 - self.tuning_share) * self.total_steps)

    def rules(self) -> Rules:
        """No weight decay for biases, norms, positions and class tokens."""
        return ((r"(bias|scale|positions|cls_token)$", (1.0, 0.0)), ("", (1.0, 1.0)))

    def example(self, image_shape: Sequence[int]) -> dict[str, jax.ShapeDtypeStruct]:
        """An image and its text."""
        return super().example(image_shape) | texts.example(self.text.length)

    def reads(self, outputs: Sequence[str]) -> tuple[str, ...]:
        """Images, or texts, or both."""
        ours = {*outputs} & {*TEXT_OUTPUTS}
        images = self.inputs if {*outputs} != ours or not ours else ()
        return (*images, *(texts.FIELDS if ours else ()))

    def vocabulary_size(self) -> int:
        """See `Method`."""
        return self.text.vocabulary

    def offers(self) -> tuple[str, ...]:
        """Those of the image, see `ImageMethod`; 'text_features' [B, D] float32 of the text; and
        'image_embedding' and 'text_embedding' [B, `embedding`] float32 of length 1, whose products
        the loss compares.
        """
        return (*super().offers(), "image_embedding", *TEXT_OUTPUTS)

    def embeddings(self) -> tuple[str, ...]:
        """See `Method`."""
        return ("image_embedding", "text_embedding")

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initializes parameters for images of this size; a batch without texts will do."""
        keys = jax.random.split(key, 4)
        text = jnp.zeros((1, self.text.length), jnp.int32)
        images = self.normalize(batch["image"])
        features = [jnp.zeros((1, width)) for width in (self.feature_width, self.text.width)]
        params = {
            "encoder": self.encoder.init(keys[0], images)["params"],
            "text": self.text.init(keys[1], text, text > 0)["params"],
            "image_projection": self.projection.init(keys[2], features[0])["params"],
            "text_projection": self.projection.init(keys[3], features[1])["params"],
            "logit_scale": jnp.full((), math.log(1 / 0.07)),
        }
        if self.loss_kind == "sigmoid":  # as in SigLIP, to start near the prior of 1 / B
            params |= {"logit_scale": jnp.full((), math.log(10)), "logit_bias": jnp.full((), -10.0)}
        return params, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """The contrastive loss of the pairs of the global batch; images without text are left out.
        The metric 'top1' is the fraction of images whose most similar text is their own.
        """
        text, valid = texts.of_batch("clip", batch, self.text.length)
        images = self.visible_features(params, batch["image"], key, step)
        pairs = (
            self.embed(params, "image", images),
            self.embed(params, "text", self.text_features(params, text, valid)),
            valid.any(axis=1) & with_image(batch),
        )
        if self.loss_kind == "sigmoid":
            scale = jnp.exp(params["logit_scale"])
            loss, accuracy = image_text_sigmoid(*pairs, scale=scale, bias=params["logit_bias"])
        else:
            scale = jnp.exp(jnp.clip(params["logit_scale"], 0, math.log(MAX_SCALE)))
            loss, accuracy = image_text(*pairs, scale=scale)
        return Output(loss, extra, {"top1": accuracy, "temperature": 1 / scale})

    def visible_features(
        self, params: Params, images: jax.Array, key: jax.Array, step: jax.Array | int
    ) -> jax.Array:
        """Features [B, D] float32 of masked images, from `first_step` on of whole ones.

        Args:
            images: [B, *space, C] uint8.
        """
        encode = lambda mask: self.pooled(
            self.encoder.apply(
                {"params": params["encoder"]}, images, mask, normalize=self.normalize
            )
        )
        if not self.mask_ratio:
            return encode(None)
        context = MaskContext(
            grid=grid_of(images.shape[1:-1], self.encoder.patch), batch=len(images)
        )
        masked = lambda: encode(sample(key, random.make(), context, self.mask_ratio))
        if not self.tuning_share:
            return masked()
        return jax.lax.cond(step >= self.first_step, lambda: encode(None), masked)

    def text_features(self, params: Params, text: jax.Array, valid: jax.Array) -> jax.Array:
        """Features [B, D] float32 of texts [B, T]."""
        return self.text.apply({"params": params["text"]}, text, valid)

    def embed(self, params: Params, kind: str, features: jax.Array) -> jax.Array:
        """Embeddings [B, `embedding`] float32 of length 1.

        Args:
            kind: of the features, 'image' or 'text'.
        """
        return unit(self.projection.apply({"params": params[f"{kind}_projection"]}, features))

    def predict(
        self, params: Params, extra: Extra, batch: Batch, *, outputs: Sequence[str]
    ) -> dict[str, jax.Array]:
        """See `offers`."""
        others = ("image_embedding", *TEXT_OUTPUTS)
        plain = [name for name in outputs if name not in others]
        if "image_embedding" in outputs and "features" not in plain:
            plain.append("features")
        found = super().predict(params, extra, batch, outputs=plain) if plain else {}
        if "image_embedding" in outputs:
            found["image_embedding"] = self.embed(params, "image", found["features"])
        if {*outputs} & {*TEXT_OUTPUTS}:
            rows = texts.of_batch("clip", batch, self.text.length)
            found["text_features"] = self.text_features(params, *rows)
            found["text_embedding"] = self.embed(params, "text", found["text_features"])
        return {name: found[name] for name in outputs}


def make(
    *,
    vocabulary: int,
    length: int = 32,
    encoder: str = "vit(B, patch=16)",
    text: str = "text_tower(width=512, depth=12, heads=8)",
    embedding: int = 512,
    mask_ratio: float = 0.5,
    tuning_share: float = 0.05,
    loss: str = "infonce",
    pool: str = "mean",
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> ImageText:
    """Builds contrastive learning of images and texts. With gradient accumulation, the negatives
    are those of the microbatch, not of the whole batch.

    Args:
        vocabulary: number of different tokens of the texts.
        length: number of tokens T of a text with its padding, that of the source.
        encoder: spec string of the encoder of images.
        text: spec string of the encoder of texts, see `models.text_tower.make`.
        embedding: width of the vectors that are compared.
        mask_ratio: fraction of masked patches, in [0, 1); 0 for CLIP.
        tuning_share: fraction of the steps, the last ones, with whole images, in [0, 1].
        loss: 'infonce', with a learned temperature of at least 0.01; or 'sigmoid', of SigLIP.
        pool: features of the image from its tokens: 'mean' of the patches or 'cls'.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: of the networks' computations, 'float32' or 'bfloat16'.

    Raises:
        UserError: an unknown or invalid value.
    """
    texts.check("clip", vocabulary=vocabulary, length=length, ratios={"mask_ratio": mask_ratio})
    check_choice("loss", loss, LOSSES)
    if not 0 <= tuning_share <= 1 or embedding < 1:
        raise UserError(
            f"clip: tuning_share={tuning_share} must be in [0, 1], embedding={embedding} positive"
        )
    fields = ImageText.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype)
    if mask_ratio and fields["encoder"].mask_tokens:
        raise UserError(f"clip: encoder={encoder} encodes masked patches: set mask_ratio=0")
    more = dict(vocabulary=vocabulary, length=length, dtype=jnp.dtype(dtype))
    return ImageText(
        **fields,
        text=build(text, "models", TextTower, **more),
        embedding=embedding,
        mask_ratio=mask_ratio,
        tuning_share=tuning_share,
        loss_kind=loss,
    )
