"""Mean attention distance: how far from a patch each head looks (Dosovitskiy et al. 2020, arXiv
2010.11929, figure 7).
"""

import numpy as np

from mae_jax.explain import heat
from mae_jax.explain.attention import no_attention
from mae_jax.explain.subject import Subject
from mae_jax.explain.view import Chart, Shown, View


def make() -> View:
    """A view of attention distances, in pixels, of the shown images."""
    return View(
        name="distance",
        title="Attention distance",
        section="attention",
        order=1,
        reads="One dot per head: the mean distance in pixels between a patch and the patches that "
        "it attends to. Low dots are local heads, as a convolution; the dashed line is attention "
        "to all patches alike.",
        misleads="A head near the dashed line may look everywhere without a choice, or choose by "
        "content; look at its map. Distances grow with the image, so compare equal sizes only.",
        draw=drawn,
        check=no_attention,
    )


def distances(positions: np.ndarray) -> np.ndarray:
    """Distances [L, L] between positions [L, 2]."""
    return np.linalg.norm(positions[:, None].astype(np.float64) - positions, axis=-1)


def mean_distance(weights: np.ndarray, positions: np.ndarray, prefix: int) -> np.ndarray:
    """The mean over patches of the attention-weighted distance to other patches.

    Args:
        weights: [..., T, T] (query, key), for `prefix` class tokens followed by L patches. Class
            tokens are left out, and each row is divided by its sum.
        positions: [L, 2] of the patches, in pixels.

    Returns:
        [...] in pixels.
    """
    rows = weights[..., prefix:, prefix:].astype(np.float64)  # [..., L, L]
    total = np.maximum(rows.sum(axis=-1), 1e-30)  # [..., L]
    return ((rows * distances(positions)).sum(axis=-1) / total).mean(axis=-1)


def drawn(subject: Subject) -> Shown:
    """The view."""
    prefix, found = subject.network.encoder.prefix, []
    for image in subject.images:
        weights = np.stack(subject.network.compute(image[None], "attention_weights"))[:, 0]
        found.append(mean_distance(weights, subject.positions, prefix))
    values = np.mean(found, axis=0)  # [blocks, heads]
    uniform = float(distances(subject.positions).mean())
    blocks = np.arange(1, len(values) + 1)
    figure, axis = heat.chart("block", "mean distance, pixels")
    axis.plot(blocks, values, "o", color="C0", alpha=0.6, markersize=5)
    axis.plot(blocks, values.mean(axis=1), color="C0", label="mean of the heads")
    axis.axhline(uniform, color="0.4", linestyle="--", label="uniform attention")
    axis.set_ylim(bottom=0)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize=8)
    first, last = values.mean(axis=1)[[0, -1]]
    finding = (
        f"The mean is {first:.1f} pixels in the first block and {last:.1f} in the last; uniform "
        f"attention has {uniform:.1f}. The most local head has {values.min():.1f} (block "
        f"{values.min(axis=1).argmin() + 1})."
    )
    return Shown(
        numbers={"pixels": values.round(4).tolist(), "uniform": round(uniform, 4)},
        findings=[finding],
        charts={
            "distance": Chart(
                heat.chart_png(figure), f"Attention distance of heads by block. {finding}"
            )
        },
    )
