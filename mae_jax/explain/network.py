"""The trained networks that views explain: outputs of their encoders in float32, on one device."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax import traverse_util

from mae_jax import weights
from mae_jax.methods import make_method
from mae_jax.methods.images import ImageMethod
from mae_jax.models.encoder import Encoder
from mae_jax.ops.masking import Mask
from mae_jax.ops.patches import grid_of
from mae_jax.types import Extra, Params, UserError
from mae_jax.workdir import read_classes

BATCH = 16
"""Images of a sample computed at once."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A trained model, for images of one shape; see `make_network`."""

    name: str
    """Where it is from, as the user wrote it."""
    kind: str
    """Of its method, e.g. 'mae' or 'tasks.finetune'."""
    spec: str
    """Spec string of the encoder."""
    method: ImageMethod
    params: Params
    extra: Extra
    classes: Sequence[str]
    """Names of the classes that it has learned; () if they are not known."""

    @property
    def described(self) -> tuple[str, str, str]:
        """Name, kind and spec string."""
        return self.name, self.kind, self.spec

    @property
    def encoder(self) -> Encoder:
        """The encoder as a Flax module."""
        return self.method.encoder

    @property
    def layer_word(self) -> str:
        """'block' or, of encoders with feature maps only, 'stage'."""
        return "block" if self.encoder.layers else "stage"

    def compute(
        self,
        images: np.ndarray,
        name: str = "tokens",
        *,
        layers: Sequence[int] = (),
        mask: Mask | None = None,
    ):
        """An output of the encoder, compiled once for each shape.

        Args:
            images: [B, H, W, C] uint8.
            name: 'tokens' [B, prefix + K, D], with a mask of the visible patches; 'layer_tokens' of
                the layers, 'maps' or 'attention_weights', a list each, see `Encoder`.
            layers: see `Encoder.layer_tokens`.
            mask: see `Encoder`.
        """
        return self._compiled(self.params["encoder"], images, mask, name, tuple(layers))

    def refusal(self, images: np.ndarray, name: str, **options) -> str | None:
        """Why the encoder does not have an output, see `compute`; None: it has."""
        try:
            jax.eval_shape(lambda images: self.compute(images, name, **options), images)
        except UserError as error:
            return str(error)
        return None

    @functools.cached_property
    def _compiled(self):
        def compute(params, images, mask, name, layers):
            variables, inputs = {"params": params}, self.method.normalize(images)
            if name == "tokens":
                return self.encoder.apply(variables, inputs, mask)
            options = {"layers": layers} if name == "layer_tokens" else {}
            return self.encoder.apply(variables, inputs, method=name, **options)

        return jax.jit(compute, static_argnums=(3, 4))


class Statistics(NamedTuple):
    """Of a sample of images."""

    features: dict[str, list[np.ndarray]]
    """Pool -> features [M, D] of each layer, the last one last: 'mean' of the patches and, of
    encoders with class tokens, 'cls', the mean of these. Encoders that do not return layers have
    their feature maps instead, or else their output alone."""
    positions: np.ndarray
    """[L, D] float32: the mean of the last patch tokens at each position."""


def statistics(network: Network, sample: np.ndarray) -> Statistics:
    """Features of all layers of a sample [M, H, W, C] uint8, in one pass."""
    encoder, features, positions = network.encoder, {}, 0
    prefix, mapped = encoder.prefix, network.refusal(sample[:1], "maps") is None
    for start in range(0, len(sample), BATCH):
        rows = sample[start : start + BATCH]
        count = len(rows)
        rows = np.concatenate([rows, np.repeat(rows[-1:], BATCH - count, axis=0)])  # one shape
        if encoder.layers:
            layers = network.compute(rows, "layer_tokens", layers=range(encoder.layers))
            layers = [np.asarray(x, np.float32)[:count] for x in layers]  # [b, prefix + L, D]
            last, pools = layers[-1][:, prefix:], {"mean": [x[:, prefix:] for x in layers]}
            pools |= {"cls": [x[:, :prefix] for x in layers]} if prefix else {}
        else:
            last = np.asarray(network.compute(rows), np.float32)[:count, prefix:]
            maps = network.compute(rows, "maps") if mapped else [last]
            maps = [np.asarray(x, np.float32)[:count] for x in maps]
            pools = {"mean": [x.reshape(count, -1, x.shape[-1]) for x in maps]}  # [b, L, D] each
        for pool, tokens in pools.items():
            features.setdefault(pool, []).append([x.mean(axis=1) for x in tokens])  # [b, D] each
        positions = positions + last.sum(axis=0, dtype=np.float64) / len(sample)  # [L, D]
    joined = {
        pool: [np.concatenate(parts) for parts in zip(*batches, strict=True)]
        for pool, batches in features.items()
    }
    return Statistics(joined, positions.astype(np.float32))


def make_network(source: str, model: weights.Model, shape: Sequence[int]) -> Network:
    """Builds the network of weights for images of a shape.

    Args:
        source: where the weights are from, see `mae_jax.weights.read`.
        shape: [H, W, C] of the images, to which learned positions are resampled.

    Raises:
        UserError: a model without an encoder of images, or images that do not fit.
    """
    args = model.args | ({"dtype": "float32"} if "dtype" in model.args else {})
    method = make_method(name=model.method, args=args)
    if not isinstance(method, ImageMethod):
        raise UserError(f"{source}: {model.method} has no encoder of images to explain")
    grid_of(shape[:-1], method.encoder.patch)
    if model.image is not None and model.image[-1] != shape[-1]:
        raise UserError(
            f"{source} takes images of {model.image[-1]} channels, and these have {shape[-1]}"
        )
    params = dict(model.params)
    if model.image is None or tuple(model.image) != tuple(shape):
        adapt, part = method.adapt(shape, model.image), "encoder/"
        for path in [path for path in params if path.startswith(part)]:
            params[path] = np.asarray(adapt(path.removeprefix(part), params[path]))
    nested = lambda flat: traverse_util.unflatten_dict(flat, sep="/")
    names = read_classes(Path(source).expanduser()) if weights.is_run(source) else {}
    (*_, field) = ("", *method.labels())
    return Network(
        name=source,
        kind=model.method,
        spec=str(model.args.get("encoder", type(method.encoder).__name__)),
        method=method,
        params=jax.device_put(nested(params)),
        extra=jax.device_put(nested(model.extra)),
        classes=tuple(names.get(field, ())),
    )
