"""Tables of the reports of `bench compile`, for the terminal and as Markdown."""

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.table import Table

from mae_jax.bench.compile import Report
from mae_jax.bench.machines import parse_topology

COLUMNS = (
    "config",
    "devices",
    "mesh",
    "images per device",
    "memory, GB",
    "% of memory",
    "traffic, GB",
    "attention, %",
    "collectives, MB",
    "asynchronous",
    "MFU at most, %",
    "faults",
)


def tables(report: Report) -> list[Table]:
    """All tables of a report."""
    drawn = [_summary(report)]
    if "memory" in report:
        drawn += [_memory(report), _buffers(report), _collectives(report), _traffic(report)]
    return drawn


def _table(title: str, *columns: str) -> Table:
    drawn = Table(title=title, box=SIMPLE, pad_edge=False, title_justify="left")
    for index, column in enumerate(columns):
        drawn.add_column(column, justify="right" if index else "left")
    return drawn


def _summary(report: Report) -> Table:
    drawn = Table(title=title(report), box=SIMPLE, show_header=False, pad_edge=False)
    drawn.add_row("mesh", _mesh(report))
    drawn.add_row("images per device", f"{report['images_per_device']:g}")
    for kind in report["attention"]:
        drawn.add_row("attention", kind)
    options = ",".join(f"{name}={value}" for name, value in report["compiler_options"].items())
    drawn.add_row("compiler options", options or "none")
    drawn.add_row("fits in the memory of a device", "yes" if report["fits"] else "NO")
    if "bounds" in report:
        for name, value in report["bounds"].items():
            if name == "mfu":
                drawn.add_row("model FLOPs utilization at most, %", f"{100 * value:.0f}")
            else:
                drawn.add_row(f"lower bound of a step, ms: {name}", f"{1e3 * value:.2f}")
    for line in report["notes"]:
        drawn.add_row("note", line)
    for line in report["faults"]:
        drawn.add_row("fault", line)
    return drawn


def title(report: Report) -> str:
    """Title of a report: config and devices."""
    label = parse_topology(report["topology"], report["slices"]).label
    return f"{report.get('config', '')} on {label} ({report['devices']} x {report['device']})"


def _memory(report: Report) -> Table:
    drawn = _table("memory of a device", "", "GB", "% of memory")
    available = report["machine"]["memory"]
    for name in ("arguments", "aliased", "outputs", "temporaries", "constants", "total"):
        value = report["memory"][name]
        label = "  reused for outputs (donated)" if name == "aliased" else name
        drawn.add_row(label, f"{value / 1e9:.3f}", f"{100 * value / available:.1f}")
    return drawn


def _buffers(report: Report) -> Table:
    drawn = _table("largest buffers", "", "MB", "module")
    drawn.columns[2].justify = "left"
    for one in report["memory"]["largest"]:
        names = one["modules"][:2] + (("...",) if len(one["modules"]) > 2 else ())
        drawn.add_row(one["shape"], f"{one['bytes'] / 1e6:,.1f}", ", ".join(names))
    return drawn


def _collectives(report: Report) -> Table:
    drawn = _table("collectives of a step", "", "count", "asynchronous", "MB", "MB sent")
    for kind, sums in report["collectives"].items():
        drawn.add_row(
            kind,
            str(sums["count"]),
            str(sums["asynchronous"]),
            f"{sums['payload'] / 1e6:,.2f}",
            f"{sums['moved'] / 1e6:,.2f}",
        )
    return drawn


def _traffic(report: Report) -> Table:
    moved, estimates = report["traffic"], report.get("cycles", {})
    clock = report["machine"]["clock"]
    columns = ("", "GB", "%") + (("% of cycles", "ms") if estimates else ())
    drawn = _table("traffic of main memory, by part", *columns)
    total = sum(estimates.values())
    for name in dict.fromkeys((*moved["parts"], *estimates)):
        value = moved["parts"].get(name, 0.0)
        cells = [f"{value / 1e9:.2f}", f"{100 * value / moved['total']:.1f}"]
        if estimates:
            count = estimates.get(name, 0.0)
            cells += [f"{100 * count / total:.1f}", f"{1e3 * count / clock:.2f}" if clock else ""]
        drawn.add_row(name, *cells)
    time = ["100.0", f"{1e3 * total / clock:.2f}" if clock else ""] if estimates else []
    drawn.add_row("all", f"{moved['total'] / 1e9:.2f}", "100.0", *time)
    drawn.add_row("without copies", f"{moved['without_copies'] / 1e9:.2f}", "")
    drawn.add_row("attention", "", f"{100 * moved['attention_share']:.1f}")
    return drawn


def _mesh(report: Report) -> str:
    return " x ".join(f"{name} {size}" for name, size in report["mesh"].items())


def row(report: Report) -> list[str]:
    """The cells of a report, in the order of COLUMNS."""
    if "error" in report:
        return [report["config"], report["topology"], *[""] * 9, report["error"]]
    label = parse_topology(report["topology"], report["slices"]).label
    cells = [report["config"], label, _mesh(report), f"{report['images_per_device']:g}"]
    if "memory" in report:
        sums = list(report["collectives"].values())
        count, asynchronous = (sum(one[name] for one in sums) for name in ("count", "asynchronous"))
        cells += [
            f"{report['memory']['total'] / 1e9:.2f}",
            f"{100 * report['memory']['share']:.0f}",
            f"{report['traffic']['total'] / 1e9:.1f}",
            f"{100 * report['traffic']['attention_share']:.0f}",
            f"{sum(one['payload'] for one in sums) / 1e6:,.0f}",
            f"{asynchronous} of {count}",
            f"{100 * report['bounds']['mfu']:.0f}" if "mfu" in report["bounds"] else "",
        ]
    else:
        cells += [""] * 7
    return [*cells, "; ".join(report["faults"])]


def summary(reports: Sequence[Report]) -> Table:
    """A table with a row for each report, without the faults, which are long."""
    drawn = _table("compiled steps", *COLUMNS[:-1])
    for report in reports:
        drawn.add_row(*row(report)[:-1])
    return drawn


def markdown(reports: Sequence[Report]) -> str:
    """A Markdown table with a row for each report."""
    lines = [COLUMNS, ["---"] * 3 + ["--:"] * (len(COLUMNS) - 4) + ["---"], *map(row, reports)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
