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
        order=1,
        reads="Click a patch: red patches of all images have similar features, blue ones opposite "
        "ones. A good encoder finds the same part of other objects.",
        misleads="The mean feature of the data is subtracted, as it makes all patches alike; a "
        "similarity of 0 is therefore the average. Patches at the same place can be similar by "
        "their position alone: compare both choices.",
        draw=drawn,
    )


def centered(patches: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Features [N, L, D] minus their mean [D] or [L, D], scaled to length 1, float64."""
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
    patches, positions = subject.patches, subject.statistics.positions
    mean, shape = positions.mean(axis=0), (-1, patches.shape[-1])
    kinds = {
        "without the mean": centered(patches, mean),  # [N, L, D] each
        "without the mean of each position": centered(patches, positions),
    }
    vectors = {name: reduced(x.reshape(shape)) for name, x in kinds.items()}
    label, x = list(kinds.items())[-1]
    colors = heat.colored(x @ x[0, subject.center], -1, 1, heat.DIVERGING)
    tiles = {
        "image": heat.rgb(subject.images),
        f"similarity to the patch in the center of the first image, {label}": heat.over(
            subject.images, colors, subject.grid
        ),
    }
    plain = centered(patches, np.zeros_like(mean)).reshape(shape).mean(axis=0)
    raw = float(plain @ plain)  # the mean cosine of all pairs
    finding = f"Without subtracting anything, two patches have a cosine of {raw:.2f} on average."
    best = None
    if len(x) > 1:
        others = x[1:].reshape(shape) @ x[0].T  # [(N - 1) L, L]
        best = float(others.max(axis=0).mean())
        finding += (
            f" The best match of a patch of the first image in the others has {best:.2f}, {label}."
        )
    return Shown(
        numbers={
            "mean_cosine": round(raw, 5),
            "best_match": best,
            "coordinates": {name: found.shape[1] for name, (found, _) in vectors.items()},
            "largest_error_on_the_page": {name: error for name, (_, error) in vectors.items()},
        },
        findings=[finding],
        tiles=tiles,
        maps=Vectors(
            {name: found.reshape(*x.shape[:2], -1) for name, (found, _) in vectors.items()}
        ),
    )
