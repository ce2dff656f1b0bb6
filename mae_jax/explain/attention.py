"""Attention maps: where each head of a block looks from a patch, or from the class token
(Dosovitskiy et al. 2020, arXiv 2010.11929; Caron et al. 2021, arXiv 2104.14294).
"""

import zlib
from collections.abc import Sequence

import numpy as np

from mae_jax.explain import heat
from mae_jax.explain.subject import Subject
from mae_jax.explain.view import Shown, View, Weights
from mae_jax.models.limits import chosen

BUDGET = 1_200_000
"""Compressed bytes of maps on a page: more blocks or images are left out."""


def make(*, blocks: Sequence[int] | None = None) -> View:
    """A view of attention weights.

    Args:
        blocks: indices of the blocks to choose from on the page, negative ones from the end; None:
            as many as the page has room for, evenly spaced, the last one among them.
    """
    return View(
        name="attention",
        title="Attention maps",
        section="attention",
        order=0,
        reads="Click a patch, or choose the class token: each map shows how one head of the block "
        "distributes the attention of it over all patches. Bright patches are read most.",
        misleads="High attention is not importance: values may be small and later layers may "
        "ignore them. In masked pre-training the class token has no loss of its own, so trust rows "
        "of patches more.",
        draw=lambda subject: drawn(subject, blocks),
        check=no_attention,
    )


def no_attention(subject: Subject) -> str | None:
    """Why a model has no attention weights; None: it has some."""
    return subject.network.refusal(subject.images[:1], "attention_weights")


def rows_of(weights: np.ndarray, prefix: int) -> np.ndarray:
    """The attention of queries to patches only, each row with the sum 1.

    Args:
        weights: [..., T, T] (query, key), for `prefix` class tokens followed by L patches.

    Returns:
        [..., Q, L]: the mean of the class tokens, if there are any, then the patches.
    """
    to_patches = weights[..., prefix:]  # [..., T, L]
    to_patches = to_patches / np.maximum(to_patches.sum(axis=-1, keepdims=True), 1e-30)
    rows = to_patches[..., prefix:, :]  # [..., L, L]
    if not prefix:
        return rows
    tokens = to_patches[..., :prefix, :].mean(axis=-2, keepdims=True)  # [..., 1, L]
    return np.concatenate([tokens, rows], axis=-2)


def drawn(subject: Subject, blocks: Sequence[int] | None) -> Shown:
    """The view."""
    network, prefix = subject.network, subject.network.encoder.prefix
    shades, peaks, on_tokens = [], [], []
    for image in subject.images:
        weights = np.stack(network.compute(image[None], "attention_weights"))[:, 0]
        row = heat.shades(rows_of(weights, prefix))  # [blocks, heads, Q, L], [blocks, heads, Q]
        shades.append(row[0]), peaks.append(row[1])
        on_tokens.append(weights[:, :, prefix:, :prefix].sum(axis=-1).mean(axis=-1))
    shades, peaks = np.stack(shades), np.stack(peaks)  # [N, blocks, heads, Q, L]
    depth, heads = shades.shape[1:3]
    numbers = chosen("block", depth, blocks)
    numbers, count = fitting(shades, numbers if blocks is not None else None)
    query = 0 if prefix else subject.center
    last = shades[:, numbers[-1], :, query] / heat.SHADES  # [N, heads, L]
    where = "of the class token" if prefix else "of the patch in the center"
    tiles = {"image": heat.rgb(subject.images)} | {
        f"head {head + 1} of block {numbers[-1] + 1}, {where}": heat.heat(
            subject.images, np.square(last[:, head]), subject.grid
        )
        for head in range(heads)
    }
    share = np.mean(on_tokens, axis=0)  # [blocks, heads]
    findings = [f"{heads} heads in each of {depth} blocks."]
    if prefix:
        findings.append(
            f"Patches give {100 * share.mean(axis=1)[-1]:.1f}% of their attention to the class "
            "token in the last block; maps leave that share out."
        )
    if count < len(shades):
        findings.append(f"To keep the page small it has the maps of the first {count} images only.")
    return Shown(
        numbers={
            "blocks_on_the_page": [number + 1 for number in numbers],
            "share_on_class_tokens": share.round(5).tolist(),
            "largest_weight": peaks.mean(axis=(0, 3)).round(5).tolist(),
        },
        findings=findings,
        tiles=tiles,
        maps=Weights(
            shades[:count, numbers],
            peaks[:count, numbers],
            [f"block {number + 1}" for number in numbers],
            [f"head {head + 1}" for head in range(heads)],
            prefix > 0,
        ),
    )


def fitting(shades: np.ndarray, asked: Sequence[int] | None) -> tuple[list[int], int]:
    """The blocks, and the number of images, whose maps a page has room for.

    Args:
        shades: [N, blocks, ...] uint8.
        asked: blocks that have to be among them; None: any, the last one for sure.
    """
    sizes = np.array([[len(zlib.compress(x.tobytes())) for x in image] for image in shades])
    depth = len(sizes[0])
    counts = range(depth, 0, -1)
    spaced = [sorted({round((i + 1) * depth / n) - 1 for i in range(n)}) for n in counts]
    subsets = spaced if asked is None else [list(asked)]
    for numbers in subsets:
        if sizes[:, numbers].sum() <= BUDGET:
            return numbers, len(sizes)
    fits = np.cumsum(sizes[:, subsets[-1]].sum(axis=1)) <= BUDGET
    return subsets[-1], max(1, int(fits.sum()))
