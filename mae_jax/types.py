"""The vocabulary of the library: what a batch, a method and a train state are.

Everything else is written in these words, so this module imports nothing else of ours but the
errors and the rules over paths.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import flax.struct
import jax
import numpy as np

from mae_jax.errors import PREEMPTED, UserError  # noqa: F401, also found here
from mae_jax.rules import DECAY_MATRICES, Rules

Batch = Mapping[str, jax.Array]
"""Fields by name: 'image' [B, *space, C], usually uint8, and 'image2' if there is a second view;
'label' [B] int32; see `data.fields`. In evaluation 'valid' [B] bool, False on rows that only pad
the last batch."""


IGNORE = 255
"""In a segmentation: of no class, as in PASCAL VOC; losses and metrics leave it out."""


def image_shape(batch: Mapping[str, Any]) -> tuple[int, ...] | None:
    """[*space, C] of the images in a batch; None if it has none."""
    return tuple(batch["image"].shape[1:]) if "image" in batch else None


Params = Any
"""A tree of float32 arrays: what the optimizer moves."""

Extra = Any
"""A tree of arrays that gradients do not train (BatchNorm statistics, EMA targets); {} if none."""

Adapt = Callable[[str, np.ndarray], Any]
"""(path, array) -> the array for other images, or the same array if it does not depend on them."""

Pictures = Callable[..., dict[str, jax.Array]]
"""(params, extra, batch, *, key=None, mask=None) -> pictures [B, *space, C] uint8 by what they
show, in the order in which they are drawn."""


class Metric(NamedTuple):
    """How a metric of an evaluator is shown and compared. Results carry it, as JSON."""

    unit: str = "%"
    """'%' for shares, which are stored in [0, 1]; any other unit as stored, '' for none."""
    decimals: int = 1
    lower_is_better: bool = False
    table: str = "main"
    """Of a comparison, where it is shown: 'main', 'further', or '' for in none."""


class Output(NamedTuple):
    """What a method's loss returns."""

    loss: jax.Array
    """Scalar float32."""
    extra: Extra
    """The updated collections, all of them."""
    metrics: Mapping[str, jax.Array]
    """Scalars to log beside the loss."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Method(abc.ABC):
    """A way of learning: all that the trainer, evaluators, exports and benchmarks may ask of it.

    Every function is pure. `key` is fresh at each step and a function of (seed, step) alone. What
    is not abstract has the default of most methods.
    """

    inputs: ClassVar[tuple[str, ...]] = ("image",)
    """Fields of a batch that `predict` reads."""
    views: ClassVar[int] = 1
    """The most views of each image that `loss` reads: 2 for 'image' and 'image2'."""
    sample: ClassVar[int] = 0
    """Number of training examples that `constants` needs; 0: there are none."""
    rank: ClassVar[int | None] = None
    """Number of axes of the images that it learns from, 2 for [B, H, W, C]; None: any."""

    total_steps: int = 1
    """Length of the run, for schedules of the method's own. The builder of a run sets it."""

    def labels(self) -> Mapping[str, int]:
        """Number of classes of each field that the method learns, e.g. {'label': 1000}. Empty:
        it learns without labels, and is evaluated beside baselines.
        """
        return {}

    def rules(self) -> Rules:
        """(regex, (learning rate factor, weight decay factor), or None for what is frozen)."""
        return DECAY_MATRICES

    def loads(self) -> Mapping[str, str]:
        """Parts of the state that may start from other weights, e.g. 'params/encoder', and for each
        a regex of the leaves that may keep their initial values where these weights lack them.
        """
        return {}

    def example(self, image_shape: Sequence[int]) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a training batch of one, where there are no data.

        Args:
            image_shape: [*space, C].
        """
        views = ("image", "image2")[: self.views]
        rows = {view: jax.ShapeDtypeStruct((1, *image_shape), np.uint8) for view in views}
        return rows | {name: jax.ShapeDtypeStruct((1,), np.int32) for name in self.labels()}

    @abc.abstractmethod
    def offers(self) -> tuple[str, ...]:
        """The outputs that `predict` can compute, e.g. ('features', 'logits')."""

    @abc.abstractmethod
    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Parameters and collections for batches of this shape. Those of `constants` have their
        shapes here, and any values.
        """

    @abc.abstractmethod
    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """The training loss of one batch."""

    @abc.abstractmethod
    def predict(
        self, params: Params, extra: Extra, batch: Batch, *, outputs: Sequence[str]
    ) -> dict[str, jax.Array]:
        """The outputs that are asked for, each [B, ...]. Deterministic."""

    def constants(self, sample: Mapping[str, np.ndarray]) -> Extra:
        """Collections that are computed once, from `sample` training examples, before the first
        step: they replace those of the same names. Called outside of jit.
        """
        return {}

    def after_update(self, params: Params, extra: Extra, step) -> Extra:
        """The collections after an optimizer step."""
        return extra

    def after_load(self, params: Params, extra: Extra) -> Extra:
        """The collections after parameters were loaded from other weights."""
        return extra

    def adapt(self, shape: Sequence[int], old: Sequence[int] | None) -> Adapt:
        """Fits loaded arrays to other images.

        Args:
            shape: [*space, C] of the images here.
            old: the same of the images that the arrays are for; None: not known.
        """
        return lambda path, array: array

    def pictures(self) -> Pictures | None:
        """What draws what the method sees and predicts; None if there is nothing to draw."""
        return None


class Skips(NamedTuple):
    """How many steps changed nothing, as their loss or gradient was not finite."""

    total: jax.Array
    in_a_row: jax.Array
    """Since the last good one."""


@flax.struct.dataclass
class TrainState:
    """All that a checkpoint holds: with the config, it determines the rest of the run."""

    step: jax.Array
    params: Params
    opt_state: Any
    extra: Extra
    skips: Skips
