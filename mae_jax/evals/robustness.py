"""Robustness of a classifier to corruptions: the protocol of ImageNet-C (Hendrycks and Dietterich
2019, arXiv 1903.12261) on any labeled data set, with `mae_jax/data/transforms/corruption.py`.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mae_jax.evals.classify import ONE_CLASSIFIER, classified
from mae_jax.evals.features import EvalData, Evaluator, Predict, check_limit
from mae_jax.spec import nearest
from mae_jax.types import Metric, UserError

SEVERITIES = (1, 2, 3, 4, 5)

ALEXNET = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""Corruption (all but frost) -> AlexNet's top-1 error on ImageNet-C, mean over severities, as
published with the paper's code."""


def make(
    *,
    kinds: str | Sequence[str] = "all",
    severities: int | Sequence[int] = SEVERITIES,
    limit: int | None = None,
    reference: str | None = None,
) -> Evaluator:
    """An evaluator of classifiers: run(predict, data) -> errors (top-1, in [0, 1]) on the test
    split, each on the same images: 'robustness_error', the mean over kinds and severities;
    'robustness/clean', without corruption; 'robustness/<kind>', the mean over severities.

    With a reference also 'mce_14', the mean over kinds of error / AlexNet's error. It is close to
    the paper's mCE / 100, but not equal: mCE includes frost, and reads images stored as JPEGs.

    Args:
        kinds: corruptions: 'all' fourteen, or some, e.g. ('fog', 'snow').
        severities: from 1 to 5.
        limit: maximum number of test examples; None: all.
        reference: 'alexnet', for classifiers of the 1000 classes of ImageNet; it needs all kinds
            and severities.

    Raises:
        UserError: an unknown kind, severity or reference; when called: a reference for a classifier
            of other than 1000 classes.
    """
    check_limit("robustness", limit)
    names = _names(kinds)
    levels = (severities,) if isinstance(severities, int) else tuple(severities)
    if not levels or not set(levels) <= set(SEVERITIES):
        raise UserError(f"robustness: severities={severities}, choose some from 1 to 5")
    _check_reference(reference, names, levels)

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        clean = _error(predict, data.eval("test", limit), reference)
        errors = {}
        for name in names:
            specs = [f"corruption({name}, severity={level})" for level in levels]
            values = [_error(predict, data.eval("test", limit, then=s), reference) for s in specs]
            errors[name] = float(np.mean(values))
        metrics = {"robustness_error": float(np.mean(list(errors.values())))}
        metrics |= {"robustness/clean": clean}
        metrics |= {f"robustness/{name}": error for name, error in errors.items()}
        if reference:
            metrics["mce_14"] = float(np.mean([errors[name] / ALEXNET[name] for name in names]))
        return metrics

    error = Metric(lower_is_better=True, table="further")
    parts = ["robustness/clean", *(f"robustness/{name}" for name in names)]
    return Evaluator(
        name="robustness",
        run=run,
        outputs=("logits",),
        needs={"test": ("label",)},
        metrics={"robustness_error": error, "mce_14": error}
        | dict.fromkeys(parts, error._replace(table="")),
        advice=ONE_CLASSIFIER,
    )


def _names(kinds: str | Sequence[str]) -> tuple[str, ...]:
    """The names of the corruptions in `kinds`."""
    if kinds == "all":
        return tuple(ALEXNET)
    names = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    for name in names:
        if name not in ALEXNET:
            raise UserError(f"robustness: there is no corruption {name!r}{nearest(name, ALEXNET)}")
    if not names:
        raise UserError("robustness: kinds=(), name at least one, or 'all'")
    return names


def _check_reference(reference: str | None, names: Sequence[str], levels: Sequence[int]) -> None:
    """Raises UserError unless the reference is known for these kinds and severities."""
    if reference not in (None, "alexnet"):
        raise UserError(f"robustness: reference={reference!r}: choose alexnet, or leave it out")
    if reference and (sorted(names) != sorted(ALEXNET) or sorted(levels) != list(SEVERITIES)):
        raise UserError(
            f"robustness: reference={reference} is known for the mean over all corruptions and "
            "severities only: leave out kinds and severities, or the reference"
        )


def _error(
    predict: Predict, batches: Iterable[Mapping[str, np.ndarray]], reference: str | None
) -> float:
    """Top-1 error in [0, 1]."""
    wrong = []
    for batch in batches:
        logits, labels = classified(predict, batch, split="test")
        if reference and logits.shape[1] != 1000:
            raise UserError(
                f"robustness: reference={reference} is for the 1000 classes of ImageNet, this "
                f"classifier has {logits.shape[1]}: leave the reference out"
            )
        wrong.append(logits.argmax(axis=1) != labels)
    return float(np.mean(np.concatenate(wrong)))
