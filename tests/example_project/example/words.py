"""A method without images: a transformer predicts masked words (BERT)."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from mae_jax.models.transformer import blocks
from mae_jax.types import Batch, Extra, Method, Output, Params


class Transformer(nn.Module):
    """A tiny BERT."""

    vocabulary: int
    width: int

    @nn.compact
    def __call__(self, text: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Tokens [B, L, D] and logits [B, L, vocabulary] of words [B, L] int32."""
        x = nn.Embed(self.vocabulary + 1, self.width, name="embed")(text)
        positions = self.param("positions", nn.initializers.normal(0.02), x.shape[1:])
        x = blocks(x + positions, depth=1, heads=2).last
        return x, nn.Dense(self.vocabulary, name="predict")(x)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MaskedWords(Method):
    """Masked language modeling."""

    inputs: ClassVar[tuple[str, ...]] = ("text",)
    length: int
    model: Transformer

    def example(self, image_shape: Sequence[int]) -> dict[str, jax.ShapeDtypeStruct]:
        """A training batch holds only texts."""
        return {"text": jax.ShapeDtypeStruct((1, self.length), np.int32)}

    def offers(self) -> tuple[str, ...]:
        """'features' [B, D], the mean over the words."""
        return ("features",)

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initial parameters for texts of this length."""
        return self.model.init(key, batch["text"])["params"], {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """Mean cross-entropy over the masked words, 30% of all."""
        text = batch["text"]
        masked = jax.random.uniform(key, text.shape) < 0.3
        seen = jnp.where(masked, self.model.vocabulary, text)
        _, logits = self.model.apply({"params": params}, seen)
        errors = optax.softmax_cross_entropy_with_integer_labels(logits, text)
        return Output(jnp.sum(errors * masked) / jnp.maximum(masked.sum(), 1), extra, {})

    def predict(
        self, params: Params, extra: Extra, batch: Batch, *, outputs: Sequence[str]
    ) -> dict[str, jax.Array]:
        """The named outputs, see `offers`."""
        tokens, _ = self.model.apply({"params": params}, batch["text"])
        return {name: tokens.mean(axis=1) for name in outputs}


def make(*, vocabulary: int = 8, width: int = 16, length: int = 6) -> MaskedWords:
    """Makes the method. In a config: method.name='example.words'"""
    return MaskedWords(length=length, model=Transformer(vocabulary, width))
