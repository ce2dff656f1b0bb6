"""Joint PCA colors of patch features, as in DINOv2 (arXiv 2304.07193): patches of all images with
similar features have similar colors.
"""

import numpy as np

from mae_jax.explain import heat
from mae_jax.explain.subject import Subject
from mae_jax.explain.view import Shown, View

BINS = 256
"""Of the histogram that a threshold is chosen from."""


def make(*, remove_positions: bool = True) -> View:
    """A view of the principal components of the last patch features.

    Args:
        remove_positions: also show them, and the foreground, without the mean feature of each
            position over the sample of images: the first components of a masked autoencoder often
            encode the position.
    """
    return View(
        name="colors",
        title="Principal components as colors",
        section="patches",
        order=0,
        reads="Red, green and blue are the first three components of all patches of all images "
        "together, so equal colors mean similar features across images. In the last picture, the "
        "first component has split off the background, and colors are fitted to what is left.",
        misleads="Three components are a small part of the features. Smooth gradients from edge to "
        "edge are the position and not content; the threshold fails where objects touch the "
        "border.",
        draw=lambda subject: drawn(subject, remove_positions),
    )


def components(x: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of rows [n, D].

    Args:
        count: number of components, at most D.

    Returns:
        Components [count, D] float64 of length 1, by falling variance, with their largest
        coordinate positive; and the share of the variance of each [count].
    """
    centered = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    squares, columns = np.linalg.eigh(centered.T @ centered)
    rows, squares = columns.T[::-1][:count], np.maximum(squares[::-1], 0)
    largest = np.abs(rows).argmax(axis=1)
    signs = np.sign(rows[np.arange(len(rows)), largest])
    return rows * signs[:, None], squares[:count] / max(squares.sum(), np.finfo(float).tiny)


def threshold(values: np.ndarray) -> float:
    """The threshold between two groups of numbers [n] that maximizes the variance between the
    groups (Otsu 1979), among `BINS` - 1 thresholds at equal distances.
    """
    edges = np.linspace(values.min(), values.max(), BINS + 1)[1:-1]
    above = values[:, None] > edges  # [n, BINS - 1]
    share = above.mean(axis=0)
    total = (above * values[:, None]).mean(axis=0)
    mean = values.mean()
    between = np.square(mean * share - total) / np.maximum(share * (1 - share), 1e-12)
    return float(edges[between.argmax()])


def foreground(scores: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Which patches are in front: on the side of the threshold that is rarer at the borders of the
    images than inside.

    Args:
        scores: [N, L] first component.
        grid: rows and columns of patches.

    Returns:
        [N, L] bool.
    """
    above = scores > threshold(scores.ravel())
    cells = np.ones(grid, bool)
    cells[1:-1, 1:-1] = False
    border = cells.ravel()
    inside = 0.5 if border.all() else above[:, ~border].mean()
    return above if above[:, border].mean() <= inside else ~above


def colors_of(x: np.ndarray, selected: np.ndarray) -> np.ndarray:
    """The first three principal components of selected rows, each scaled to [0, 1].

    Args:
        x: [n, D].
        selected: [n] bool, more than one of them.

    Returns:
        [n, 3] float64, 0 where a row is not selected.
    """
    rows = x[selected].astype(np.float64)
    axes, _ = components(rows, 3)
    values = (rows - rows.mean(axis=0)) @ axes.T  # [selected, up to 3]
    values = np.pad(values, ((0, 0), (0, 3 - values.shape[1])))
    low, high = values.min(axis=0), values.max(axis=0)
    result = np.zeros((len(x), 3))
    result[selected] = (values - low) / np.maximum(high - low, np.finfo(float).tiny)
    return result


def drawn(subject: Subject, remove_positions: bool) -> Shown:
    """The view."""
    patches, grid = subject.patches, subject.grid  # [N, L, D]
    flat = patches.reshape(-1, patches.shape[-1])  # [N L, D]
    everything, shares = np.ones(len(flat), bool), components(flat, 3)[1]
    # The share of the variance that is equal at a position in all images.
    by_position = subject.statistics.positions - subject.statistics.positions.mean(axis=0)
    position = float(np.square(by_position).sum(axis=1).mean() / flat.var(axis=0).sum())
    space = subject.images.shape[1:3]
    draw = lambda rows, selected: heat.spread(
        np.rint(255 * colors_of(rows, selected)).astype(np.uint8).reshape(*patches.shape[:2], 3),
        grid,
        space,
    )
    pictures = {"image": heat.rgb(subject.images), "all patches": draw(flat, everything)}
    if remove_positions:
        flat = (patches - subject.statistics.positions).reshape(flat.shape)
        pictures["without positions"] = draw(flat, everything)
    axes, _ = components(flat, 1)
    scores = (flat - flat.mean(axis=0)) @ axes[0]
    front = foreground(scores.reshape(patches.shape[:2]), grid)
    if front.sum() > 1:
        label = "foreground, without positions" if remove_positions else "foreground"
        shown = heat.spread(front, grid, space)[..., None]
        dark = (heat.rgb(subject.images) // 4).astype(np.uint8)
        pictures[label] = np.where(shown, draw(flat, front.ravel()), dark)
    return Shown(
        numbers={
            "variance": shares.round(5).tolist(),
            "foreground": front.mean(axis=1).round(4).tolist(),
            "variance_by_position": round(position, 5),
        },
        findings=[
            f"Three components have {100 * shares.sum():.0f}% of the variance of the patches, and "
            f"the position alone has {100 * position:.0f}% (means over {len(subject.sample)} "
            f"images). {100 * front.mean():.0f}% of the patches are in front."
        ],
        tiles=pictures,
    )
