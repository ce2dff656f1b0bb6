"""Fits weights to a detector with patches of another side, as ViTDet-H has patches of 16 pixels and
MAE's ViT-H of 14 (arXiv 2203.16527). Other tasks, some of which freeze the encoder, refuse them.
"""

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from mae_jax.models.encoder import Encoder
from mae_jax.models.vit import ViT
from mae_jax.models.vitdet import ViTDet
from mae_jax.ops.patches import patch_sides
from mae_jax.ops.resample import resample_patches

logger = logging.getLogger(__name__)


def differs_in_patch(old: Encoder, new: Encoder) -> bool:
    """Whether a ViTDet differs from the encoder of its weights in the side of patches alone."""
    if not isinstance(old, ViT | ViTDet) or not isinstance(new, ViTDet):
        return False
    return old.patch != new.patch and old.clone(patch=new.patch).architecture == new.architecture


def with_patch(
    saved: Mapping[str, np.ndarray],
    image: Sequence[int] | None,
    old: Encoder,
    new: Encoder,
    path: str,
) -> tuple[dict[str, np.ndarray], tuple[int, ...] | None]:
    """Resamples a patch embedding, and reports it.

    Args:
        saved: arrays of the encoder, by paths in it.
        image: [*space, C] of the images that it was trained on; None: not known.
        old, new: the encoder, and that to load into.
        path: of the weights, for the report.

    Returns:
        The arrays, and the shape of images with as many patches of the new side.
    """
    rank = len(image) - 1 if image else 2
    sides, others = patch_sides(old.patch, rank), patch_sides(new.patch, rank)
    logger.warning(
        "the patch embedding in %s is for patches of %s pixels: it is resampled to %s, the patch "
        "of config.method.args.encoder (FlexiViT, arXiv 2212.08013)",
        *(path, *(" x ".join(map(str, one)) for one in (sides, others))),
    )
    kernel = {"embed/kernel": resample_patches(saved["embed/kernel"], sides, others)}
    if image is None:
        return {**saved, **kernel}, None
    space = (n // a * b for n, a, b in zip(image[:-1], sides, others, strict=True))
    return {**saved, **kernel}, (*space, image[-1])
