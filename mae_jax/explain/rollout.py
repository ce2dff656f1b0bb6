"""Attention rollout (Abnar and Zuidema 2020, arXiv 2005.00928): the attention of all blocks
together, as if each block passed on a mixture of its inputs.
"""

import numpy as np

from mae_jax.explain import heat
from mae_jax.explain.attention import no_attention, rows_of
from mae_jax.explain.subject import Subject
from mae_jax.explain.view import Shown, View, Weights


def make() -> View:
    """A view of the attention rollout of the shown images."""
    return View(
        name="rollout",
        title="Attention rollout",
        section="attention",
        order=2,
        reads="Click a patch, or choose the class token: the map follows attention through all "
        "blocks back to the patches of the input. Bright patches contribute most; the clicked "
        "patch itself, which residual connections favor, does not count in the scale.",
        misleads="It ignores values and MLPs, is the same for every class, and blurs with depth: "
        "in a deep encoder all queries look alike.",
        draw=drawn,
        check=no_attention,
    )


def rollout(weights: np.ndarray) -> np.ndarray:
    """The product of the blocks' attention, the last block on the left: R = A_n ... A_1, with A the
    mean over heads plus the identity, rows divided by their sums.

    Args:
        weights: [blocks, heads, T, T] (query, key).

    Returns:
        [T, T] float64, rows of which sum to 1.
    """
    result = np.eye(weights.shape[-1])
    for block in weights.astype(np.float64):
        mixed = block.mean(axis=0) + np.eye(len(result))
        result = mixed / mixed.sum(axis=-1, keepdims=True) @ result
    return result


def drawn(subject: Subject) -> Shown:
    """The view."""
    prefix, maps = subject.network.encoder.prefix, []
    for image in subject.images:
        weights = np.stack(subject.network.compute(image[None], "attention_weights"))[:, 0]
        maps.append(rows_of(rollout(weights), prefix))
    rows = np.stack(maps)  # [N, Q, L]
    patches = rows[:, -rows.shape[2] :]  # [N, L, L], a view
    diagonal = np.arange(patches.shape[1])
    itself = patches[:, diagonal, diagonal].mean()
    patches[:, diagonal, diagonal] = 0
    patches[:, diagonal, diagonal] = patches.max(axis=-1)
    peaks = rows.max(axis=-1)
    above = rows - rows.min(axis=-1, keepdims=True)  # residual connections lift all patches
    shades, _ = heat.shades(above)
    # How far rows are from each other, which blurring makes small: total variation distance.
    blur = np.abs(patches - patches.mean(axis=1, keepdims=True)).sum(axis=-1).mean() / 2
    query = 0 if prefix else subject.center
    where = "of the class token" if prefix else "of the patch in the center"
    tiles = {"image": heat.rgb(subject.images)}
    tiles[f"rollout {where}"] = heat.heat(subject.images, above[:, query], subject.grid)
    return Shown(
        numbers={"own_patch": round(float(itself), 5), "difference_of_rows": round(float(blur), 5)},
        findings=[
            f"A patch keeps {100 * itself:.1f}% for itself, and patches differ from the mean map "
            f"in {100 * blur:.0f}% of their weight."
        ],
        tiles=tiles,
        maps=Weights(
            shades[:, None, None], peaks[:, None, None], [""], ["rollout"], prefix > 0, "smallest"
        ),
    )
