"""The types that all modules share: `Batch`, `Method`, `Output` and `TrainState`.

To avoid cycles, this module imports only the errors and the path rules of the library.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import flax.struct
import jax
import numpy as np

from mae_jax.errors import PREEMPTED, UserError  # noqa: F401, re-exported
from mae_jax.rules import DECAY_MATRICES, Rules

Batch = Mapping[str, jax.Array]
"""Fields by name: 'image' [B, *space, C], usually uint8; 'image2', a second view of the same
images; 'label' [B] int32; 'labels' [B, K] uint8; 'value' [B] or [B, V] float32; 'weight' [B]
float32; 'group' [B] int32; see `data.fields`. In evaluation also 'valid' [B] bool, False for rows
that pad the last batch."""


IGNORE = 255
"""Segmentation value of unlabeled pixels, as in PASCAL VOC; losses and metrics skip it."""


def image_shape(batch: Mapping[str, Any]) -> tuple[int, ...] | None:
    """[*space, C] of the images in a batch; None if it has none."""
    return tuple(batch["image"].shape[1:]) if "image" in batch else None


def with_image(batch: Mapping[str, Any]) -> Any:
    """Which examples of a batch have an image, [B] bool: those where the field 'image_valid' [B] is
    True, or all if there is none.
    """
    return batch.get("image_valid", np.ones(len(batch["image"]))).astype(bool)


def layer_output(layer: int | None, pool: str = "") -> str:
    """Name of the output with the features of one layer of the encoder.

    Args:
        layer: number of the layer, negative from the end: 'features/2', 'features/-1'. None: the
            method's own features, 'features', or with a pool those of the last layer.
        pool: how the tokens are pooled, as in 'features/2/mean'; '': as the method pools them.
    """
    if layer is None and not pool:
        return "features"
    return "/".join(["features", str(-1 if layer is None else layer), *([pool] if pool else [])])


Params = Any
"""Pytree of float32 arrays that the optimizer updates."""

Extra = Any
"""Collections by name: pytrees of arrays without gradients (BatchNorm statistics, EMA targets)."""

Adapt = Callable[[str, np.ndarray], Any]
"""(path, array) -> the array for another image shape; the same array if it fits any shape."""

Pictures = Callable[..., dict[str, jax.Array]]
"""(params, extra, batch, *, key=None, mask=None) -> pictures [B, *space, C] uint8 by label, in
display order."""


class Metric(NamedTuple):
    """How reports display and compare a metric of an evaluator. Stored with the results as JSON."""

    unit: str = "%"
    """'%' for fractions, stored in [0, 1]; any other unit is displayed as stored, '' for none."""
    decimals: int = 1
    lower_is_better: bool = False
    table: str = "main"
    """Table of a comparison that includes it: 'main', 'further', or '' for none."""
    ranked: bool = True
    """Whether a comparison marks the best value: not of chance levels, counts and controls."""


class Output(NamedTuple):
    """The result of `Method.loss`."""

    loss: jax.Array
    """Scalar float32."""
    extra: Extra
    """All collections, updated or not."""
    metrics: Mapping[str, jax.Array]
    """Scalars to log with the loss."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Method(abc.ABC):
    """A pretext task or downstream task, as the trainer, evaluators, exports and benchmarks see it.

    All functions are pure. `key` differs at every step and is a function of (seed, step) only.
    """

    inputs: ClassVar[tuple[str, ...]] = ("image",)
    """Fields of a batch that `predict` reads, but for outputs with inputs of their own, see
    `reads`."""
    views: ClassVar[int] = 1
    """Maximum number of views of each image that `loss` reads: 2 for 'image' and 'image2'."""
    sample: ClassVar[int] = 0
    """Number of training examples that `constants` reads; 0: the method has no constants."""
    sample_fields: ClassVar[tuple[str, ...]] = ()
    """Fields of labels that `constants` reads, as the source has them; (): whole examples, with
    their images, after the transforms."""
    rank: ClassVar[int | None] = None
    """Number of spatial axes that its images must have, 2 for [B, H, W, C]; None: any number."""

    total_steps: int = 1
    """Length of the run, for the method's own schedules. Set when the run is built."""

    def labels(self) -> Mapping[str, int]:
        """Number of classes of each label field that the method trains on, e.g. {'label': 1000}.
        Empty: the method is self-supervised, and its evaluation includes baselines.
        """
        return {}

    def vocabulary_size(self) -> int:
        """Number of different tokens of the texts that the method learns; 0: it reads no texts."""
        return 0

    def criterion(self) -> tuple[str, ...]:
        """(evaluator, its metric) that choose one of several heads on held-out images, such as
        ('regression', 'r2'); (): there are no heads to choose from.
        """
        return ()

    def rules(self) -> Rules:
        """Pairs (regex of parameter paths, (learning rate factor, weight decay factor)), with None
        instead of the factors for frozen parameters; the first match counts. A third number is the
        step before which they do not change, by gradients or decay.
        """
        return DECAY_MATRICES

    def loads(self) -> Mapping[str, str]:
        """Subtrees of the state that `init_from` may load, e.g. 'params/encoder', each with a regex
        of the leaves that keep their initial values if the loaded weights lack them.
        """
        return {}

    def encoders(self) -> Mapping[str, Any]:
        """Subtrees among those of `loads` -> the encoder or other network whose arrays they are, a
        `models.encoder.Loadable`. Weights of another architecture are refused.
        """
        return {}

    def example(self, image_shape: Sequence[int]) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a training batch with one example, for use without data.

        Args:
            image_shape: [*space, C].
        """
        views = ("image", "image2")[: self.views]
        rows = {view: jax.ShapeDtypeStruct((1, *image_shape), np.uint8) for view in views}
        return rows | {name: jax.ShapeDtypeStruct((1,), np.int32) for name in self.labels()}

    @abc.abstractmethod
    def offers(self) -> tuple[str, ...]:
        """Names of the outputs that `predict` can compute, e.g. ('features', 'logits'). A name
        'features/*' stands for all layers together, [B, layers, D]. It, or any 'features/2', also
        offers each of them: see `layer_output`.
        """

    def embeddings(self) -> tuple[str, ...]:
        """Outputs of one vector per example, [B, E] float32, that `mae-jax features` writes beside
        'features': those whose fields the data have, see `reads`.
        """
        return ()

    def reads(self, outputs: Sequence[str]) -> tuple[str, ...]:
        """Fields of a batch that `predict` reads for these outputs: those of `inputs`, and more
        where an output needs them.
        """
        return self.inputs

    def check_output(self, name: str, output: str) -> None:
        """Raises UserError unless an output is offered.

        Args:
            name: name of the method, for the message.
        """
        offers, family = self.offers(), f"{output.partition('/')[0]}/"
        layered = "*" not in output and any(one.startswith(family) for one in offers)
        if output not in offers and not layered:
            choices = ", ".join(offers)
            raise UserError(f"output of {name}: {output!r} is unknown: choose {choices}")

    @abc.abstractmethod
    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initializes parameters and collections for batches of this shape. The collections that
        `constants` computes must have their final shapes, with any values.
        """

    @abc.abstractmethod
    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """Computes the training loss of one batch.

        Args:
            key: the PRNG key of this step.
            step: number of the step from 0, scalar int32, for schedules.
        """

    @abc.abstractmethod
    def predict(
        self, params: Params, extra: Extra, batch: Batch, *, outputs: Sequence[str]
    ) -> dict[str, jax.Array]:
        """The requested outputs by name, each [B, ...]. Deterministic."""

    def constants(self, sample: Mapping[str, np.ndarray]) -> Extra:
        """Computes collections once before the first step, from `sample` training examples. They
        replace the initial collections of the same names. Called outside of jit.
        """
        return {}

    def after_update(self, params: Params, extra: Extra, step) -> Extra:
        """The collections after an optimizer step."""
        return extra

    def after_load(self, params: Params, extra: Extra) -> Extra:
        """The collections after parameters were loaded from other weights."""
        return extra

    def adapt(self, shape: Sequence[int], old: Sequence[int] | None) -> Adapt:
        """Returns a function that adapts loaded arrays to this run's images.

        Args:
            shape: [*space, C] of this run's images.
            old: [*space, C] of the images that the arrays were trained on; None: unknown.
        """
        return lambda path, array: array

    def pictures(self) -> Pictures | None:
        """A function that draws the method's inputs and predictions; None if it has no pictures."""
        return None


class Skips(NamedTuple):
    """Number of steps that were skipped because their loss or gradient was not finite."""

    total: jax.Array
    in_a_row: jax.Array
    """Since the last step that was not skipped."""


@flax.struct.dataclass
class TrainState:
    """The content of a checkpoint: together with the config it determines the rest of the run."""

    step: jax.Array
    params: Params
    opt_state: Any
    extra: Extra
    skips: Skips
