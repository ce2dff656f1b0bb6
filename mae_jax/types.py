"""The vocabulary of the library: what a batch, a method and a train state are.

Everything else is written in these words, so this module imports nothing else of ours but the
errors.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import flax.struct
import jax

from mae_jax.errors import PREEMPTED, UserError  # noqa: F401, also found here

Batch = Mapping[str, jax.Array]
"""'image' [B, H, W, C] uint8 always, 'image2' if there is a second view; 'label' [B] int32; in
evaluation 'mask' [B] bool, False on rows that only pad the last batch."""

Params = Any
"""A tree of float32 arrays: what the optimizer moves."""

Extra = Any
"""A tree of arrays that gradients do not train (BatchNorm statistics, EMA targets); {} if none."""


class Output(NamedTuple):
    """What a method's loss returns."""

    loss: jax.Array
    """Scalar float32."""
    extra: Extra
    """The updated collections."""
    metrics: Mapping[str, jax.Array]
    """Scalars to log beside the loss."""


class Method(Protocol):
    """A way of learning: all that the trainer knows of it.

    Every function is pure. `key` is fresh at each step and a function of (seed, step) alone.
    """

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Parameters and collections for batches of this shape."""

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """The training loss of one batch."""

    def predict(self, params: Params, extra: Extra, batch: Batch) -> dict[str, jax.Array]:
        """What the model says of whole images: 'features' [B, D] always. Deterministic."""

    def after_update(self, params: Params, extra: Extra, step) -> Extra:
        """The collections after an optimizer step; the identity for most methods."""


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
