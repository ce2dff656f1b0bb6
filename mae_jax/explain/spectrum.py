"""RankMe (arXiv 2210.02885) and the spectrum of the features: how many dimensions they use."""

import numpy as np

from mae_jax.evals.spectrum import alpha, rankme
from mae_jax.explain import heat
from mae_jax.explain.subject import Subject
from mae_jax.explain.view import Chart, Shown, View
from mae_jax.types import UserError

FIRST, LAST = 11, 50
"""Variances that the exponent is fitted to, as in the evaluator `spectrum`."""


def make() -> View:
    """A view of the spectrum of the features of the sample."""
    return View(
        name="spectrum",
        title="Dimensions in use",
        section="features",
        order=1,
        reads="Variances of the features along their principal components, the largest first. A "
        "flat curve uses many dimensions; one that falls off a cliff has collapsed. RankMe is the "
        "effective number.",
        misleads="Compare models of one width only, from many more images than dimensions; a large "
        "mean lowers RankMe. It was validated for joint embeddings, not for masked autoencoders.",
        draw=drawn,
    )


def variances(features: np.ndarray) -> np.ndarray:
    """Eigenvalues [D] of the covariance of features [n, D], falling."""
    x = features.astype(np.float64)
    x = x - x.mean(axis=0)
    return np.maximum(np.linalg.eigvalsh(x.T @ x / len(x))[::-1], 0)


def drawn(subject: Subject) -> Shown:
    """The view."""
    layers = subject.statistics.features[subject.pool]
    ranks = [rankme(x.astype(np.float64)) for x in layers]
    spectrum = variances(layers[-1])
    figure, axis = heat.chart("component", "variance")
    shown = spectrum[spectrum > 1e-9 * spectrum[0]]
    axis.loglog(np.arange(1, len(shown) + 1), shown)
    count, width = layers[-1].shape
    finding = f"RankMe of the last layer is {ranks[-1]:.0f} of {min(count, width)}"
    numbers = {"rankme": np.round(ranks, 3).tolist(), "variances": spectrum.tolist()}
    try:
        numbers["alpha"] = alpha(layers[-1].astype(np.float64), first=FIRST, last=LAST)
        finding += f", and the exponent of the decay {numbers['alpha']:.2f}"
    except UserError:  # too few dimensions for a line
        numbers["alpha"] = None
    word = subject.network.layer_word
    by_layer, axis = heat.chart(word, "RankMe")
    axis.plot(np.arange(1, len(ranks) + 1), ranks, "o-")
    axis.set_ylim(0, 1.1 * max(ranks))
    axis.xaxis.get_major_locator().set_params(integer=True)
    finding += f" ({count} images, {width} dimensions)."
    few = f" With fewer than {10 * width} images it is too low." * (count < 10 * width)
    return Shown(
        numbers=numbers,
        findings=[finding + few],
        charts={
            "spectrum": Chart(
                heat.chart_png(figure), f"Variances of the components of features. {finding}"
            ),
            "rankme": Chart(
                heat.chart_png(by_layer),
                f"RankMe by {word}: {', '.join(f'{r:.0f}' for r in ranks)}.",
            ),
        },
    )
