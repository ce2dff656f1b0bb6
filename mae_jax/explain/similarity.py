"""Similarity of a clicked patch to all patches of all shown images: cosine similarity of features
without their mean.
"""

import numpy as np

from mae_jax.explain import heat
from mae_jax.explain.subject import Subject
from mae_jax.explain.view import Shown, Vectors, View

ERROR = 0.01
"""Largest error of a similarity on the page, by leaving out components."""
MOST = 96
"""Components on the page at most."""


def make() -> View:
    """A view of the similarity of patches."""
    return View(
        name="similarity",
        title="Similar patches",
        section="patches",
        reads="Click a patch: red patches of all images have similar features, blue ones opposite "
        "ones. A good encoder finds the same part of other objects.",
        misleads="The mean feature of the data is subtracted, as it makes all patches alike; a "
        "similarity of 0 is therefore the average. Patches at the same place can be similar by "
        "their position alone.",
        draw=drawn,
    )


def centered(patches: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Features [..., D] minus their mean [D], scaled to length 1, float64."""
    x = patches.astype(np.float64) - mean
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def reduced(x: np.ndarray) -> tuple[np.ndarray, float]:
    """Fewer coordinates whose products are nearly those of the rows.

    Args:
        x: [n, D] of length 1.

    Returns:
        [n, k] float32, with the smallest k that changes no product by more than `ERROR`, up to
        `MOST`; and the largest change.
    """
    _, axes = np.linalg.eigh(x.T @ x)
    scaled = x @ axes[:, ::-1]  # [n, D], by falling variance
    # No product changes more than that of the row of which most is left out, with itself.
    left_out = np.square(scaled)[:, ::-1].cumsum(axis=1)[:, ::-1].max(axis=0)  # [D]
    errors = np.append(left_out[1:], 0)[: min(MOST, len(left_out))]  # of 1, 2, ... coordinates
    count = int(np.argmax(errors <= ERROR)) + 1 if errors[-1] <= ERROR else len(errors)
    return scaled[:, :count].astype(np.float32), float(errors[count - 1])


def drawn(subject: Subject) -> Shown:
    """The view."""
    patches, mean = subject.patches, subject.statistics.positions.mean(axis=0)
    x = centered(patches, mean)  # [N, L, D]
    flat = x.reshape(-1, x.shape[-1])
    vectors, error = reduced(flat)
    plain = centered(patches, np.zeros_like(mean)).reshape(flat.shape).mean(axis=0)
    raw = float(plain @ plain)  # the mean cosine of all pairs
    likeness = x @ x[0, subject.center]  # [N, L]
    colors = heat.colored(likeness, -1, 1, heat.DIVERGING)
    tiles = {
        "image": heat.rgb(subject.images),
        "similarity to the patch in the center of the first image": heat.over(
            subject.images, colors, subject.grid
        ),
    }
    nearest = x[1:].reshape(-1, x.shape[-1]) @ x[0].T  # [(N - 1) L, L]
    finding = f"Without subtracting the mean, two patches have a cosine of {raw:.2f} on average."
    if len(nearest):
        best = float(nearest.max(axis=0).mean())
        finding += f" The best match of a patch in another image has {best:.2f} on average."
    return Shown(
        numbers={
            "mean_cosine_with_the_mean": round(raw, 5),
            "components": vectors.shape[1],
            "largest_error_on_the_page": round(error, 5),
            "best_match": round(best, 5) if len(nearest) else None,
        },
        findings=[finding],
        tiles=tiles,
        maps=Vectors(vectors.reshape(*x.shape[:2], -1)),
    )
