"""Declarations of metrics, which say how each is shown. Results are stored with them."""

from collections.abc import Iterable, Mapping

from mae_jax.types import Metric

EVAL = "eval/"
"""Prefix of evaluation metrics in metrics.jsonl."""

LOWER = Metric(lower_is_better=True, table="further")
BEFORE = {
    "top5": Metric(table="further"),
    "nll": LOWER._replace(unit="nats", decimals=3),
    "ece": LOWER,
    "robustness_error": LOWER,
    "mce_14": LOWER,
    "val": Metric(table=""),
    "head": Metric(unit="", decimals=0, table=""),
}
"""Declarations for older results, which were stored without any. New metrics need no entry here."""


def filled(metrics: Mapping[str, Metric], names: Iterable[str]) -> dict[str, Metric]:
    """The declaration of each named metric, with defaults for missing ones.

    Args:
        metrics: declarations stored with the results; empty for older results.
        names: names of the metrics.
    """
    names = list(names)
    if metrics:
        return {name: metrics.get(name, BEFORE.get(name, Metric())) for name in names}
    parts = {name: Metric(table="") for name in names if "/" in name}  # e.g. 'robustness/fog'
    return {name: BEFORE.get(name, Metric()) for name in names} | parts
