"""Sensitivity of features to the mask ratio: how much of an image's features is left when patches
are masked.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.explain import heat
from mae_jax.explain.network import BATCH, Network
from mae_jax.explain.subject import Subject
from mae_jax.explain.view import Chart, Shown, View
from mae_jax.models.encoder import pooled
from mae_jax.ops.masking import from_scores, num_visible
from mae_jax.ops.patches import grid_of
from mae_jax.types import UserError

NEIGHBORS = 10
"""Nearest images that are compared."""


def make(*, ratios: Sequence[float] = (0.25, 0.5, 0.75, 0.9), limit: int = 256) -> View:
    """A view of features of masked images.

    Args:
        ratios: shares of masked patches, in (0, 1); those that leave no patch are left out.
        limit: images of the sample that are used, at most.
    """
    if not ratios or not all(0 < ratio < 1 for ratio in ratios) or limit < 2:
        raise UserError(
            f"mask_ratio(ratios={tuple(ratios)}, limit={limit}): ratios must be in (0, 1), and "
            "limit at least 2"
        )
    return View(
        name="mask_ratio",
        title="Features of masked images",
        section="features",
        order=3,
        reads="Features of an image with random masks, compared with those of the whole image: "
        "their cosine (without the mean of all images), and the share of the "
        f"{NEIGHBORS} nearest other images that stay the same.",
        misleads="Robust features are not always good ones: a constant is robust. Classifiers "
        "that never saw masks fall faster than masked autoencoders, and lose nothing by it.",
        draw=lambda subject: drawn(subject, ratios, limit),
        check=lambda subject: no_masks(subject, ratios),
    )


def no_masks(subject: Subject, ratios: Sequence[float]) -> str | None:
    """Why an encoder does not encode masked images; None: it does."""
    images, length = subject.images[:1], int(np.prod(subject.grid))
    if not any(num_kept(length, ratio) for ratio in ratios):
        return f"no ratio leaves one of {length} patches visible"
    mask = from_scores(jnp.zeros((1, length)), 1)
    return subject.network.refusal(images, "tokens", mask=mask)


def num_kept(length: int, ratio: float) -> int:
    """Number of visible ones of so many patches, which may be 0."""
    return int(length * (1 - ratio) + 1e-6)


def masked_features(network: Network, images: np.ndarray, ratio: float, pool: str) -> np.ndarray:
    """Features [n, D] of images [n, H, W, C] with random masks, one for each image."""
    length = int(np.prod(grid_of(images.shape[1:3], network.encoder.patch)))
    visible = num_visible(length, ratio) if ratio else length
    scores = jax.random.uniform(jax.random.key(0), (len(images), length))
    parts = []
    for start in range(0, len(images), BATCH):
        rows = images[start : start + BATCH]
        index = np.minimum(start + np.arange(BATCH), len(images) - 1)  # one shape for all batches
        mask = from_scores(scores[index], visible) if ratio else None
        tokens = network.compute(images[index], mask=mask)
        parts.append(pooled(tokens, pool, prefix=network.encoder.prefix)[: len(rows)])
    return np.concatenate(parts)


def cosines(whole: np.ndarray, masked: np.ndarray) -> float:
    """The mean cosine of rows [n, D], both minus the mean of `whole`."""
    a, b = (x.astype(np.float64) - whole.mean(axis=0, dtype=np.float64) for x in (whole, masked))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(norms, 1e-12)).mean())


def agreement(whole: np.ndarray, masked: np.ndarray, k: int) -> float:
    """The mean share of the k nearest other rows of `whole` [n, D], by cosine similarity, that a
    row and its masked version have in common.
    """
    unit = lambda x: x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    keys, near = unit(whole.astype(np.float64)), []
    for x in (whole, masked):
        similarity = unit(x.astype(np.float64)) @ keys.T
        np.fill_diagonal(similarity, -np.inf)
        near.append(np.argsort(-similarity, axis=1, kind="stable")[:, :k])
    return float(np.mean([len({*a} & {*b}) / k for a, b in zip(*near, strict=True)]))


def drawn(subject: Subject, ratios: Sequence[float], limit: int) -> Shown:
    """The view."""
    images, network = subject.sample[:limit], subject.network
    whole = masked_features(network, images, 0, subject.pool)
    k = min(NEIGHBORS, len(images) - 1)
    length = int(np.prod(subject.grid))
    ratios = sorted(ratio for ratio in ratios if num_kept(length, ratio))
    found = [masked_features(network, images, ratio, subject.pool) for ratio in ratios]
    cosine = [1.0, *(cosines(whole, x) for x in found)]
    common = [1.0, *(agreement(whole, x, k) for x in found)]
    figure, axis = heat.chart("share of masked patches, %", "")
    shares = [0, *(100 * ratio for ratio in ratios)]
    axis.plot(shares, cosine, "o-", label="cosine with the whole image")
    axis.plot(shares, common, "s--", label=f"same {k} nearest images")
    axis.axhline(k / max(1, len(images) - 1), color="0.6", linewidth=1, label="nearest by chance")
    axis.set(ylim=(min(0, *cosine), 1.02))
    axis.legend(fontsize=8)
    finding = (
        f"With {100 * ratios[-1]:.0f}% of the patches masked, the cosine is {cosine[-1]:.2f}, and "
        f"{100 * common[-1]:.0f}% of the nearest images stay the same ({len(images)} images)."
    )
    numbers = {
        "ratios": [0, *ratios],
        "cosine": np.round(cosine, 5).tolist(),
        "same_neighbors": np.round(common, 5).tolist(),
    }
    chart = Chart(heat.chart_png(figure), f"Similarity of features by mask ratio. {finding}")
    return Shown(numbers=numbers, findings=[finding], charts={"mask_ratio": chart})
