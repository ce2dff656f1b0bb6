"""Numbers as tables show them: shares in percent, everything else in its unit."""

UNITS = {"nll": ("nats", 3), "head": ("", 0)}
"""Metric -> unit and decimals of those that are no shares."""


def heading(metric: str) -> str:
    """A metric with its unit."""
    unit, _ = UNITS.get(metric, ("%", 1))
    return f"{metric} {unit}".strip()


def shown(metric: str, value: float) -> str:
    """A value in that unit."""
    if metric in UNITS:
        return f"{value:.{UNITS[metric][1]}f}"
    return f"{100 * value:.1f}"
