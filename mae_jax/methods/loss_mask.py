"""Which voxels of a volume count in the loss of masked autoencoders. Air around a body may be most
of a scan and teaches nothing; OpenMind (arXiv 2412.17041) leaves out regions that were removed to
make scans anonymous.
"""

import dataclasses

import jax
import jax.numpy as jnp

from mae_jax.ops.patches import patchify
from mae_jax.spec import call, check_choice, parse
from mae_jax.targets import Target, TargetContext
from mae_jax.targets.pixels import Pixels
from mae_jax.types import IGNORE, Batch, UserError

FIELD = "segmentation"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossMask:
    """The foreground: voxels above a threshold, or of any class of the field 'segmentation'."""

    threshold: float | None
    """A voxel is foreground if any of its channels is above, in [0, 255); None: by the field."""
    share: float
    """0: each voxel counts, or not. Otherwise a patch counts as a whole if at least this share of
    its voxels is foreground."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of a batch besides the image that it reads."""
        return (FIELD,) if self.threshold is None else ()

    def foreground(self, batch: Batch) -> jax.Array:
        """[B, *space, 1] bool.

        Raises:
            UserError: the batch lacks the field.
        """
        if self.threshold is not None:
            return (batch["image"] > self.threshold).any(axis=-1, keepdims=True)
        if FIELD not in batch:
            raise UserError(
                f"loss_mask={FIELD} needs this field in batches: set config.data.fields="
                f"({FIELD!r},), and a source with it, such as volume('scans', masks='labels')"
            )
        classes = batch[FIELD]
        return ((classes != 0) & (classes != IGNORE))[..., None]

    def weights(self, batch: Batch, target: Target, context: TargetContext) -> jax.Array:
        """Which predicted values count: [B, K, V] bool, or [B, K] for whole patches."""
        foreground = self.foreground(batch)
        if self.share:
            shares = patchify(foreground, context.patch).mean(axis=-1, keepdims=True)  # [B, L, 1]
            return context.take(shares >= self.share)[..., 0]
        voxels = context.take(target.cut(foreground, context))  # [B, K, P]
        return jnp.repeat(voxels, batch["image"].shape[-1], axis=-1)  # channels are innermost


def _above(threshold: float = 0.0, share: float = 0.0) -> LossMask:
    if not 0 <= threshold < 255:
        raise UserError(f"loss_mask above({threshold}) is outside [0, 255): 0 leaves out black")
    return LossMask(threshold=float(threshold), share=share)


def _segmentation(share: float = 0.0) -> LossMask:
    return LossMask(threshold=None, share=share)


KINDS = {"above": _above, FIELD: _segmentation}


def make_loss_mask(text: str, target: Target) -> LossMask | None:
    """Builds the mask of a spec string; None for ''.

    Args:
        text: 'above(10)', voxels above a level in [0, 255), or 'segmentation', voxels of a class
            other than 0; each also takes `share`, see `LossMask`.
        target: what is predicted.

    Raises:
        UserError: an unknown or invalid value, or a mask of voxels for a target of others.
    """
    if not text:
        return None
    calls = parse(text)
    check_choice("loss_mask", calls[0].name if len(calls) == 1 else text, KINDS)
    made = call(f"loss_mask={text}", KINDS[calls[0].name], *calls[0].args, **calls[0].kwargs)
    if not 0 <= made.share <= 1:
        raise UserError(f"loss_mask={text}: share={made.share} is outside [0, 1]")
    if not made.share and not isinstance(target, Pixels):
        raise UserError(
            f"loss_mask={text} is of voxels, and the target is not pixels: add share=0.1, to leave "
            "out whole patches"
        )
    return made
