"""Results that others reported beside those of a sweep: tables of the rows that both have, whether
the orderings agree, and curves.

The reported results are a JSON file, see `published/mae_paper.json`:

- `source`: where they are from.
- `compare`: which of their values is compared with which column and metric of the sweep, e.g.
  `{"value": "linear", "column": "frozen", "metric": "logistic"}`.
- `tables`: each has a `name` and `rows`. A row has the reported values in percent, and the name of
  the sweep's `row`; or, if the table has a `key` of the config, its value `x`. Then the rows of the
  sweep are 'base' and those whose names start with `prefix`. With `relative`, x is a multiple of
  the base's.
"""

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from ml_collections import ConfigDict

from mae_jax.json_files import has, read_json
from mae_jax.sweeps.comparison import Finished, by_row, declared, plain
from mae_jax.sweeps.progress import COLORS, WIDTH, save_svg
from mae_jax.tables import markdown, spread
from mae_jax.types import UserError

PUBLISHED = Path(__file__).parent / "published"
BASE = "base"
CERTAIN = 2.0
"""Standard errors that a difference must exceed to count."""


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """One line of a table.

    Attributes:
        label: what the line is called.
        reported: value in percent.
        ours: values of the sweep's seeds, as fractions; may be empty.
        x: position in the curve, if the table has one.
    """

    label: str
    reported: float | None
    ours: Sequence[float]
    x: float | None = None

    @property
    def mean(self) -> float:
        """Mean over the seeds in percent."""
        return 100 * statistics.fmean(self.ours)


def load(name: str) -> dict[str, Any]:
    """Reads reported results.

    Args:
        name: of a file in `published/`, or the path of a JSON file.

    Raises:
        UserError: there is no such file, or it has another structure.
    """
    known = sorted(path.stem for path in PUBLISHED.glob("*.json"))
    path = PUBLISHED / f"{name}.json" if name in known else Path(name)
    if not path.is_file():
        raise UserError(f"--reported {name}: choose {', '.join(known)}, or pass a JSON file")
    return read_json(path, "its structure is described in docs/sweeps.md", is_reported)


def is_reported(content: Any) -> bool:
    """Whether parsed JSON has the structure of reported results."""
    return (
        has(content, "source", "compare", "tables")
        and all(has(one, "value", "column", "metric") for one in content["compare"])
        and all(map(is_table, content["tables"]))
    )


def is_table(table: Any) -> bool:
    """Whether parsed JSON has the structure of one of their tables."""
    if not has(table, "name", "rows"):
        return False
    if "key" in table and not has(table, "axis", "prefix", "relative"):
        return False
    name = "x" if "key" in table else "row"
    return all(
        has(row, name) and all(k == "row" or isinstance(v, int | float) for k, v in row.items())
        for row in table["rows"]
    )


def section(
    reported: Mapping[str, Any],
    runs: Sequence[Finished],
    configs: Mapping[str, ConfigDict],
    out: Path,
) -> list[str]:
    """Paragraphs of Markdown; draws the curves into `out/figures`. Empty if nothing is comparable.

    Args:
        reported: see `load`.
        runs: of the sweep.
        configs: name of a run -> its config.
        out: folder of the report.
    """
    parts = []
    for compare in reported["compare"]:
        measured = [
            run for run in runs if run.column == compare["column"] and compare["metric"] in run.own
        ]
        paired = [pair(table, measured, configs, compare) for table in reported["tables"]]
        error = pooled(one for pairings in paired for one in pairings)
        for table, pairings in zip(reported["tables"], paired, strict=True):
            both = [p for p in pairings if p.ours and p.reported is not None]
            if len(both) > 1 or ("key" in table and sum(bool(p.ours) for p in pairings) > 1):
                title = f"{plain(table['name'])}: {compare['value']}"
                parts += [f"### {title}", lines(pairings, compare, measured)]
                parts += [agreement(both, error)] if len(both) > 1 else []
                if "key" in table:
                    name = f"figures/reported_{len(parts)}.svg"
                    draw(table, pairings, compare, error, out / name)
                    parts.append(f"![{title}, ours and reported]({name})")
    text = (
        f"Reported: {plain(reported['source'])}. Ours are other images, sizes and schedules: "
        "compare orderings, not values. An ordering counts where our difference exceeds "
        f"{CERTAIN:g} standard errors, from the standard deviation over seeds, pooled over the "
        "rows of these tables that have several. Bars in the curves have the length of "
        f"{CERTAIN:g} standard errors to each side."
    )
    return ["## Beside what was reported", text, *parts] if parts else []


def pair(
    table: Mapping[str, Any],
    runs: Sequence[Finished],
    configs: Mapping[str, ConfigDict],
    compare: Mapping[str, str],
) -> list[Pairing]:
    """The lines of a table, in the order of the reported ones, then ours that were not reported."""
    rows = by_row(runs)
    if "key" not in table:
        return [
            Pairing(
                label=row["row"],
                reported=row.get(compare["value"]),
                ours=[run.own[compare["metric"]] for run in rows.get(row["row"], ())],
            )
            for row in table["rows"]
        ]
    kept = [
        run
        for run in runs
        if run.name in configs and (run.row == BASE or run.row.startswith(table["prefix"]))
    ]
    numbers = {run.name: value_at(configs[run.name], table["key"]) for run in kept}
    base = 1.0
    if table["relative"]:
        base = next((numbers[run.name] for run in kept if run.row == BASE), base)
    ours: dict[float, list[float]] = {}
    for run in kept:
        ours.setdefault(numbers[run.name] / base, []).append(run.own[compare["metric"]])
    theirs = {row["x"]: row.get(compare["value"]) for row in table["rows"]}
    return [
        Pairing(label=f"{table['axis']} {x:g}", reported=theirs.get(x), ours=ours.get(x, ()), x=x)
        for x in sorted({*ours, *theirs})
    ]


def value_at(config: ConfigDict, key: str) -> float:
    """A number of a config: 'method.args.mask_ratio'."""
    for part in key.split("."):
        config = config[part]
    return float(config)


def pooled(pairings: Iterable[Pairing]) -> float | None:
    """Standard deviation over seeds in percent, pooled over the lines that have several. A line
    that is in several tables counts once.
    """
    squares, freedom = 0.0, 0
    for values in {tuple(p.ours) for p in pairings if len(p.ours) > 1}:
        squares += statistics.variance(values) * (len(values) - 1)
        freedom += len(values) - 1
    return 100 * math.sqrt(squares / freedom) if freedom else None


def lines(pairings: Sequence[Pairing], compare: Mapping[str, str], runs: Sequence[Finished]) -> str:
    """The table in Markdown."""
    metric = declared(runs)[compare["metric"]]
    heading = ["", f"reported, {compare['value']} %", f"ours, {compare['metric']} %"]
    body = [
        [
            plain(p.label),
            "" if p.reported is None else f"{p.reported:.1f}",
            spread(metric, p.ours) if p.ours else "",
        ]
        for p in pairings
    ]
    return markdown([heading, *body]).rstrip()


def agreement(pairings: Sequence[Pairing], error: float | None) -> str:
    """A sentence on how many pairs of lines are ordered as reported."""
    counts = {"the same": [], "within our spread": [], "reversed": []}
    for a, b in itertools.combinations(pairings, 2):
        theirs, ours = b.reported - a.reported, b.mean - a.mean
        if not theirs:
            continue
        least = math.inf if error is None else CERTAIN * error
        least *= math.sqrt(1 / len(a.ours) + 1 / len(b.ours))
        kind = "within our spread" if abs(ours) <= least else "the same"
        if kind == "the same" and ours * theirs < 0:
            kind = "reversed"
        counts[kind].append(f"{plain(a.label)} and {plain(b.label)}")
    said = [f"{len(pairs)} {kind}" for kind, pairs in counts.items()]
    text = f"Orderings of two rows: {', '.join(said)}."
    if error is None:
        text += " No row has several seeds, so none counts."
    reversed_ = counts["reversed"]
    return text + (f" Reversed: {'; '.join(reversed_)}." if reversed_ else "")


def draw(
    table: Mapping[str, Any],
    pairings: Sequence[Pairing],
    compare: Mapping[str, str],
    error: float | None,
    path: Path,
) -> None:
    """Draws both over the axis of a table, each with a vertical axis of its own. Bars are
    `CERTAIN` standard errors.
    """
    figure = Figure((WIDTH, 3.0), layout="constrained")
    left = figure.subplots()
    ours = [p for p in pairings if p.ours]
    theirs = [p for p in pairings if p.reported is not None]
    bars = error and [CERTAIN * error / math.sqrt(len(p.ours)) for p in ours]
    x, y = [p.x for p in ours], [p.mean for p in ours]
    left.errorbar(x, y, yerr=bars, color=COLORS[0], marker="o", capsize=3, elinewidth=1)
    for p in ours:
        left.plot([p.x] * len(p.ours), [100 * v for v in p.ours], ".", color=COLORS[0], alpha=0.5)
    left.set_ylabel(f"ours, {compare['metric']} %", color=COLORS[0], fontsize=9)
    right = left.twinx()
    right.grid(False)
    x, y = [p.x for p in theirs], [p.reported for p in theirs]
    right.plot(x, y, color=COLORS[1], marker="s", linestyle="--")
    right.set_ylabel(f"reported, {compare['value']} %", color=COLORS[1], fontsize=9)
    left.set_xlabel(table["axis"], fontsize=9)
    if max(p.x for p in pairings) > 4 * min(p.x for p in pairings) and table["relative"]:
        left.set_xscale("log", base=2)
        left.xaxis.set_major_formatter("{x:g}")
    save_svg(figure, path)
