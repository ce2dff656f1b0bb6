"""The spectrum of frozen features, without labels: how many dimensions they use. RankMe (Garrido et
al. 2022, arXiv 2210.02885) and alpha-ReQ (Agrawal et al. 2022).

Both were validated for joint-embedding methods, not for masked autoencoders. Compare features of
one width only, from several times as many images as the width.
"""

import numpy as np

from mae_jax.evals.features import (
    LAYERED,
    EvalData,
    Evaluator,
    Predict,
    check_finite,
    layered,
    read_split,
)
from mae_jax.types import Metric, UserError, layer_output

EPSILON = 1e-7
"""Added to each share of the singular values, as in the paper of RankMe."""


def make(*, first: int = 11, last: int = 50, layer: int | None = None, pool: str = "") -> Evaluator:
    """An evaluator: run(predict, data) -> {'rankme': effective rank of the features of the test
    split, 'alpha': exponent of the decay of their variances}.

    Args:
        first, last: of the variances in descending order, counted from 1, those that `alpha` is
            fitted to. Fewer dimensions than `last` have: up to their last one.
        layer, pool: features of a layer of the encoder, see `types.layer_output`; metrics then end
            in 'layer_2' or 'layer_2_mean'.

    Raises:
        UserError: an empty range; when called: features with too few dimensions for it.
    """
    if not 1 <= first < last:
        raise UserError(f"spectrum(first={first}, last={last}): needs 1 <= first < last")

    output, names = layer_output(layer, pool), layered(["rankme", "alpha"], layer, pool)

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        features = read_split(predict, data, "test")[output].astype(np.float64)
        check_finite(output, features)
        rank, exponent = rankme(features), alpha(features, first=first, last=last)
        return {names["rankme"]: rank, names["alpha"]: exponent}

    number = Metric(unit="", table="further")
    return Evaluator(
        name="spectrum",
        run=run,
        outputs=(output,),
        needs={"test": ()},
        metrics={names["rankme"]: number, names["alpha"]: number._replace(decimals=2)},
        advice=LAYERED if "/" in output else "",
        baselines=True,
    )


def rankme(features: np.ndarray) -> float:
    """exp(-sum p log p) of p = s / sum(s) + `EPSILON`, with the singular values s of features
    [N, D], not centered: from 1, if they are multiples of one vector, to min(N, D).
    """
    values = np.sqrt(_squares(features))
    shares = values / max(values.sum(), np.finfo(np.float64).tiny) + EPSILON
    return float(np.exp(-np.sum(shares * np.log(shares))))


def alpha(features: np.ndarray, *, first: int, last: int) -> float:
    """The exponent of a power law: minus the slope of log variance over log index.

    Args:
        features: [N, D].
        first, last: range of the indices, from 1, of the eigenvalues of the covariance that a line
            is fitted to by least squares.

    Raises:
        UserError: the range holds fewer than two variances above zero.
    """
    variances = _squares(features - features.mean(axis=0)) / len(features)
    # What is smaller is the rounding of float32 features.
    rank = int(np.sum(variances > 1e-12 * variances[0]))
    index = np.arange(first, min(last, rank) + 1)
    if len(index) < 2:
        raise UserError(
            f"spectrum: features with {rank} dimensions have no variances {first} to {last}: lower "
            "first, e.g. spectrum(first=1)"
        )
    return float(-np.polyfit(np.log(index), np.log(variances[index - 1]), 1)[0])


def _squares(x: np.ndarray) -> np.ndarray:
    """Squared singular values of a matrix [N, D] float64, the largest first."""
    gram = x.T @ x if len(x) >= x.shape[1] else x @ x.T  # the smaller of [D, D] and [N, N]
    return np.maximum(np.linalg.eigvalsh(gram)[::-1], 0)
