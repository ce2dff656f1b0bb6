"""Layer curve: how well the nearest neighbors of an image, by the features of each layer, predict
its class. The best features of a masked autoencoder need not be the last ones.
"""

import numpy as np

from mae_jax.evals.knn import vote
from mae_jax.explain import heat
from mae_jax.explain.subject import Subject
from mae_jax.explain.view import Chart, Shown, View
from mae_jax.types import UserError

TEMPERATURE = 0.07
"""Of the votes, as the default of the evaluator `knn`."""
LINES = {"mean": ("o-", "mean of the patches"), "cls": ("s--", "class token")}
"""Pool -> style and label of its line."""


def make(*, k: int = 10) -> View:
    """A view of k-NN accuracy by layer, of the sample: each image is classified by the others.

    Args:
        k: number of neighbors.
    """
    if k < 1:
        raise UserError(f"layers: k={k} must be at least 1")
    return View(
        name="layers",
        title="Layer curve",
        section="features",
        order=0,
        reads=f"Accuracy of the {k} nearest neighbors in the sample, by the features of each "
        "layer. If it falls at the end, the last layers work for the decoder: use an earlier one.",
        misleads="k-NN and linear classifiers prefer different layers, and the sample is small: "
        "mae-jax evaluate --evals 'knn(layer=2)|logistic(layer=2)' uses all labels.",
        draw=lambda subject: drawn(subject, k),
        check=no_labels,
    )


def no_labels(subject: Subject) -> str | None:
    """Why there is no layer curve of the images; None: there is one."""
    if subject.labels is None or len(np.unique(subject.labels[subject.labels >= 0])) < 2:
        return (
            "the images have no labels of two or more classes: give a folder with one folder each"
        )
    return None


def left_one_out(features: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Accuracy of the weighted votes of the k nearest other rows, by cosine similarity.

    Args:
        features: [n, D].
        labels: [n] from 0.
    """
    x = features.astype(np.float64)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    similarity = x @ x.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    near = np.take_along_axis(similarity, nearest, axis=1)
    return float(np.mean(vote(near, labels[nearest], TEMPERATURE) == labels))


def drawn(subject: Subject, k: int) -> Shown:
    """The view."""
    known = subject.labels >= 0
    labels = subject.labels[known]
    k = min(k, len(labels) - 1)
    curves = {
        pool: [left_one_out(x[known], labels, k) for x in layers]
        for pool, layers in subject.statistics.features.items()
    }
    word, names = subject.network.layer_word, subject.layer_names()
    figure, axis = heat.chart(word, "k-NN accuracy, %")
    for pool, values in curves.items():
        style, label = LINES[pool]
        axis.plot(range(1, len(values) + 1), 100 * np.array(values), style, label=label)
    chance = float(np.bincount(labels).max() / len(labels))
    axis.axhline(100 * chance, color="0.6", linewidth=1, label="most frequent class")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize=8)
    pool, values = max(curves.items(), key=lambda item: max(item[1]))
    best = int(np.argmax(values))
    error = np.sqrt(values[best] * (1 - values[best]) / len(labels))
    finding = (
        f"The best is {names[best]} ({LINES[pool][1]}) with {100 * values[best]:.1f}%; the last "
        f"has {100 * curves[pool][-1]:.1f}%. {len(labels)} images, each classified by the others: "
        f"the standard error is {100 * error:.1f}%."
    )
    return Shown(
        numbers={"k": k, "accuracy": curves, "most_frequent": chance},
        findings=[finding],
        charts={"layers": Chart(heat.chart_png(figure), f"k-NN accuracy by {word}. {finding}")},
    )
