"""How metrics are shown: as their evaluators declare, which results carry along."""

from collections.abc import Iterable, Mapping

from mae_jax.types import Metric

EVAL = "eval/"
"""Before the names of metrics in the lines of metrics.jsonl."""

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
"""What results that carry no declarations, as they were written before there were any, do not say.
A new metric needs no row here."""


def filled(metrics: Mapping[str, Metric], names: Iterable[str]) -> dict[str, Metric]:
    """Metric -> its declaration, of each of these names.

    Args:
        metrics: what was declared; empty: the results are from before declarations.
    """
    names = list(names)
    if metrics:
        return {name: metrics.get(name, BEFORE.get(name, Metric())) for name in names}
    parts = {name: Metric(table="") for name in names if "/" in name}  # e.g. 'robustness/fog'
    return {name: BEFORE.get(name, Metric()) for name in names} | parts
