"""Linear CKA (Kornblith et al. 2019, arXiv 1905.00414): how similar the features of two layers are,
up to rotation and scale. The page has the estimate without bias (Song et al. 2012; Nguyen et al.
2021, arXiv 2010.15327), which also holds for fewer images than dimensions.
"""

import numpy as np

from mae_jax.explain import heat
from mae_jax.explain.network import Statistics
from mae_jax.explain.subject import Subject
from mae_jax.explain.view import Chart, Shown, View

LEAST = 4
"""Images that the estimate without bias needs."""


def make() -> View:
    """A view of the CKA between the layers, and with those of another model (`--against`)."""
    return View(
        name="cka",
        title="Similarity of layers (CKA)",
        section="features",
        order=2,
        reads="1 is equal up to rotation and scale, 0 unrelated. Blocks of high values along the "
        "diagonal are layers that change little. Against another model, look for its layer that "
        "is most similar to each of yours.",
        misleads="A few directions of large variance decide it, and high similarity does not mean "
        "that features work equally well.",
        draw=drawn,
        check=lambda subject: (
            None if len(subject.sample) >= LEAST else f"CKA needs at least {LEAST} images"
        ),
    )


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """The squared norm of Y^T X, divided by the norms of X^T X and of Y^T Y, for features [n, D]
    and [n, E] without their means.
    """
    x, y = (z.astype(np.float64) - z.mean(axis=0, dtype=np.float64) for z in (x, y))
    norms = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.square(y.T @ x).sum() / max(norms, np.finfo(float).tiny))


def gram(x: np.ndarray) -> np.ndarray:
    """[n, n] float64 products of rows [n, D], 0 on the diagonal."""
    products = x.astype(np.float64) @ x.T.astype(np.float64)
    np.fill_diagonal(products, 0)
    return products


def hsic(one: np.ndarray, other: np.ndarray) -> float:
    """The unbiased estimate of the Hilbert-Schmidt independence criterion, of two `gram` matrices
    [n, n] of at least 4 rows (Song et al. 2012, equation 5).
    """
    n = len(one)
    trace = (one * other).sum()
    sums = one.sum() * other.sum() / ((n - 1) * (n - 2))
    cross = 2 * (one.sum(axis=0) @ other.sum(axis=0)) / (n - 2)
    return float((trace + sums - cross) / (n * (n - 3)))


def unbiased_cka(one: np.ndarray, other: np.ndarray) -> float:
    """CKA of two `gram` matrices, from unbiased estimates; 0 if one has no variance."""
    product = hsic(one, one) * hsic(other, other)
    return hsic(one, other) / np.sqrt(product) if product > 0 else 0.0


def between(one: Statistics, other: Statistics, pool: str, other_pool: str) -> np.ndarray:
    """CKA [layers, other layers] without bias."""
    rows = [gram(x - x.mean(axis=0)) for x in one.features[pool]]
    columns = [gram(x - x.mean(axis=0)) for x in other.features[other_pool]]
    return np.array([[unbiased_cka(row, column) for column in columns] for row in rows])


def matrix(values: np.ndarray, xlabel: str, ylabel: str) -> bytes:
    """A PNG of a matrix [rows, columns] in [0, 1], with its numbers if they fit."""
    figure, axis = heat.chart(xlabel, ylabel)
    image = axis.imshow(values, vmin=0, vmax=1, origin="lower", cmap=heat.SEQUENTIAL, aspect="auto")
    figure.colorbar(image, ax=axis, label="CKA")
    for ticks, count in ((axis.set_yticks, len(values)), (axis.set_xticks, len(values[0]))):
        step = 1 if count <= 12 else 4
        ticks(range(0, count, step), range(1, count + 1, step))
    if values.size <= 64:
        for (row, column), value in np.ndenumerate(values):
            color = "black" if value > 0.6 else "white"
            axis.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=color
            )
    return heat.chart_png(figure)


def drawn(subject: Subject) -> Shown:
    """The view."""
    own, pool, word = subject.statistics, subject.pool, subject.network.layer_word
    values, layers = between(own, own, pool, pool), own.features[pool]
    finding = f"The first and the last {word} have a CKA of {values[0, -1]:.2f}."
    charts = {"cka": Chart(matrix(values, word, word), f"CKA between all layers. {finding}")}
    numbers = {
        "between_layers": values.round(5).tolist(),
        "first_with_last_biased": round(linear_cka(layers[0], layers[-1]), 5),
        "images": len(layers[0]),
    }
    findings = [finding]
    if subject.against is not None:
        other = subject.against_statistics
        their_pool = pool if pool in other.features else "mean"
        theirs = between(own, other, pool, their_pool)
        numbers["against"] = theirs.round(5).tolist()
        name, their_word = subject.against.name, subject.against.layer_word
        best = int(theirs[-1].argmax())
        findings.append(
            f"Against {name}: the last layer is most similar to its {their_word} {best + 1} "
            f"({theirs[-1, best]:.2f})."
        )
        png = matrix(theirs, f"{their_word} of the other model", f"{word} of this model")
        charts["cka_against"] = Chart(png, f"CKA with the layers of {name}. {findings[-1]}")
    return Shown(numbers=numbers, findings=findings, charts=charts)
