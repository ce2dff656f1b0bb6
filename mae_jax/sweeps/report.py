"""The report of a sweep: a Markdown file with figures, and the same as one HTML page. It reads only
the workdir and runs nothing; missing results are left out.
"""

import dataclasses
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mae_jax import __version__
from mae_jax.config import differences
from mae_jax.engine.log import read
from mae_jax.json_files import has, parse_json, read_json
from mae_jax.sweeps import progress
from mae_jax.sweeps import reported as beside
from mae_jax.sweeps.comparison import (
    Finished,
    by_row,
    comparison_table,
    cost_table,
    declared,
    number,
    plain,
    with_baselines,
)
from mae_jax.sweeps.page import page
from mae_jax.tables import markdown
from mae_jax.types import UserError
from mae_jax.workdir import MAY_CHANGE, is_record, metrics_of, read_config, write

logger = logging.getLogger(__name__)

UNTOLD = ("seed", "fingerprints.", *MAY_CHANGE)
"""Prefixes of config keys that are not part of the comparison, except `evals.`."""


def report(
    workdir: Path,
    out: Path,
    *,
    notes: Path | None = None,
    title: str = "",
    reported: str | None = None,
) -> list[Path]:
    """Writes `report.md`, `report.html` and `figures/`.

    Args:
        workdir: of a sweep.
        out: folder; created if missing.
        notes: Markdown to insert before the results.
        title: of the page; default: the workdir's name.
        reported: results of others to compare with, see `reported.load`.

    Returns:
        The two pages.

    Raises:
        UserError: not the workdir of a sweep, no finished run, missing notes or pictures, or
            unknown reported results.
    """
    others = beside.load(reported) if reported else None
    if notes and not notes.is_file():
        raise UserError(f"--notes {notes}: no such file")
    runs, configs = read_runs(workdir)
    title = title or f"Comparison: {workdir.resolve().name}"
    (out / "figures").mkdir(parents=True, exist_ok=True)
    first = [run for run in runs if run.column == runs[0].column]
    parts = [
        f"# {plain(title)}",
        introduction(runs),
        missing(runs, workdir),
        notes.read_text(encoding="utf-8").strip() if notes else "",
        *results(runs),
        *(beside.section(others, runs, configs, out) if others else []),
        *costs(first),
        *curves(first, out),
        *figures(first, workdir, out),
        *settings(runs, configs),
        f"Written by `mae-jax report`, version {__version__}.",
    ]
    text = "\n\n".join(part for part in parts if part)
    html = page(text, out, title).rstrip()
    write(out / "report.md", text)
    write(out / "report.html", html)
    return [out / "report.md", out / "report.html"]


def read_runs(workdir: Path) -> tuple[list[Finished], dict[str, ConfigDict]]:
    """The finished runs of a sweep in its order, and the configs of those with a folder.

    Raises:
        UserError: not the workdir of a sweep, or no run has finished.
    """
    path = workdir / "results.jsonl"
    if not path.is_file():
        raise UserError(f"{workdir} is not the workdir of a sweep: it has no results.jsonl")
    runs, configs = [], {}
    for run in read_finished(path):
        folder = workdir / run.name
        if (folder / "config.json").is_file():
            configs[run.name] = read_config(folder)
            spent = folder / "costs.json"
            run = dataclasses.replace(
                run,
                lines=read(folder / "metrics.jsonl"),
                batch_size=configs[run.name].data.batch_size,
                costs=read_costs(spent) if spent.is_file() else {},
            )
        runs.append(run)
    if not runs:
        raise UserError(
            f"no run of the sweep in {workdir} has finished: there is nothing to report"
        )
    return runs, configs


def read_finished(path: Path) -> list[Finished]:
    """The lines of a sweep's `results.jsonl`.

    Raises:
        UserError: one of them is damaged.
    """
    keys = ("row", "column", "seed", "step", "results")
    way_out = "run `mae-jax sweep` again to rewrite it"
    check = lambda line: is_record(line, *keys) and line["results"]
    runs = []
    for index, line in enumerate(path.read_bytes().splitlines(), 1):
        if line.strip():
            record = parse_json(line, f"line {index} of {path}", way_out, check)
            values = {key: record[key] for key in keys}
            runs.append(Finished(metrics=metrics_of(record), **values))
    return runs


def read_costs(path: Path) -> dict[str, Any]:
    """The contents of a run's `costs.json`; {}, with a warning, if it is damaged."""
    way_out = "the report leaves out the costs of this run"
    try:
        return read_json(path, way_out, lambda costs: has(costs, "device", "jax"))
    except UserError as error:
        logger.warning("%s", error)
        return {}


def introduction(runs: Sequence[Finished]) -> str:
    """Sentences about the runs: names, examples, devices and versions."""
    named = zip(*((run.row, run.column, run.seed) for run in runs), strict=True)
    rows, columns, seeds = (list(dict.fromkeys(names)) for names in named)
    seen = sorted({run.step * run.batch_size for run in runs if run.batch_size})
    devices = sorted({run.costs["device"] for run in runs if run.costs})
    versions = sorted({run.costs["jax"] for run in runs if run.costs})
    between = f"{number(seen[0])} to {number(seen[-1])}" if seen[1:] else "".join(map(number, seen))
    sentences = [
        f"Finished runs: {len(runs)}. Compared: {', '.join(map(plain, rows))}. "
        f"Under: {', '.join(map(plain, columns))}. Seeds: {', '.join(map(plain, seeds))}.",
        f"Each run saw {between} examples." if seen else "",
        f"Devices: {', '.join(devices)}; jax {', '.join(versions)}." if devices else "",
    ]
    return " ".join(filter(None, sentences))


def missing(runs: Sequence[Finished], workdir: Path) -> str:
    """The list of experiments of the sweep without results."""
    path = workdir / "experiments.json"
    way_out = "run `mae-jax sweep` again to rewrite it"
    check = lambda content: isinstance(content, list) and all(isinstance(x, str) for x in content)
    experiments = read_json(path, way_out, check) if path.is_file() else []
    names = [name for name in experiments if name not in {run.name for run in runs}]
    return f"**Without a result:** {', '.join(map(code, names))}." if names else ""


def results(runs: Sequence[Finished]) -> list[str]:
    """The section with the tables of results."""
    text = (
        "Mean ± sample standard deviation over the seeds, on held-out images. The best mean of "
        "each column is bold, baselines included"
    )
    bold = {name: metric for name, metric in declared(runs).items() if metric.ranked}
    lower = [name for name, metric in bold.items() if metric.lower_is_better and metric.table]
    text += f"; of {', '.join(map(plain, lower))} that is the lowest." if lower else "."
    for column, group in with_baselines(runs).items():
        names = " and ".join(group[0].baselines)
        text += f" Under {plain(column)}, {names} are of {code(f'{group[0].row}/{column}')}."
    tables = [comparison_table(runs, name) for name in ("main", "further")]
    return ["## Results", *(markdown(table).rstrip() for table in tables if table), text]


def costs(runs: Sequence[Finished]) -> list[str]:
    """The section with the table of costs."""
    text = (
        f"Training under {plain(runs[0].column)}; medians over the seeds. Minutes and "
        "images/s are from the log, without evaluation. GFLOPs are of the training "
        "step, forward and backward, before compiler optimizations; memory is that of the "
        "compiled step, arguments and temporaries."
    )
    table = cost_table(runs)
    return ["## Cost", markdown(table).rstrip(), text] if len(table[0]) > 1 else []


def curves(runs: Sequence[Finished], out: Path) -> list[str]:
    """The section with the learning curves."""
    drawn = []
    labels = progress.axes(runs)
    for metric, declaration in progress.metrics_on_the_way(runs).items():
        pictures = []
        for label in labels:
            name = f"figures/{slug(metric)}_{label.split()[0]}.svg"
            progress.draw_metric(runs, metric, declaration, label, out / name)
            pictures.append(picture(f"{metric} against {label}, a line for each row", name))
        drawn.append("\n".join(pictures))
    if drawn:
        drawn.append("Lines are means over the seeds, bands their range; the best is named first.")
    if any("loss" in line for run in runs for line in run.lines) and labels:
        progress.draw_losses(runs, out / "figures/losses.svg")
        text = "training loss against examples seen, a panel for each row"
        drawn += [
            picture(text, "figures/losses.svg"),
            "Training losses, a line for each seed; not comparable between methods.",
        ]
    return [f"## Curves under {plain(runs[0].column)}", *drawn] if drawn else []


def figures(runs: Sequence[Finished], workdir: Path, out: Path) -> list[str]:
    """The section with the figures, except curves, of the first run of each row that has any."""
    parts = []
    for number_, (row, group) in enumerate(by_row(runs).items(), 1):
        drawn = {run.name: sorted((workdir / run.name).glob("figures/*.png")) for run in group}
        kept = {name: [p for p in paths if p.stem != "curves"] for name, paths in drawn.items()}
        run, paths = next(((name, paths) for name, paths in kept.items() if paths), ("", []))
        parts += [f"{code(run)}:"] if paths else []
        for path in paths:
            name = f"figures/{slug(path.stem)}_{number_}_{slug(row)}.png"
            shutil.copyfile(path, out / name)
            parts.append(picture(f"{path.stem} of {row}", name))
    text = "Figures of the first run of each row that has any."
    return ["## Figures", text, *parts] if parts else []


def settings(runs: Sequence[Finished], configs: Mapping[str, ConfigDict]) -> list[str]:
    """The section with the config of the first run, the differences of the first run of each column
    from it, and the differences of the first run of each row from the first run of its column.
    """
    known = [run for run in runs if run.name in configs]
    firsts: dict[str, str] = {}
    rows, lines = set(), []
    for run in known:
        base = firsts.get(run.column, known[0].name)
        if run is known[0]:
            lines.append(f"- {code(run.name)}: {described(ConfigDict(), configs[run.name])}")
        elif run.column not in firsts or run.row not in rows:
            text = described(configs[base], configs[run.name]) or "the same"
            lines.append(f"- {code(run.name)}, unlike {code(base)}: {text}")
        firsts.setdefault(run.column, run.name)
        rows.add(run.row)
    text = (
        "The config of the first run, and the differences of others from it: the first under each "
        "condition, and the first of each row. `config.json` in a run's folder is complete."
    )
    return ["## Settings", text, "\n".join(lines)] if lines else []


def described(base: ConfigDict, config: ConfigDict) -> str:
    """The differences as 'key=value'; another method as 'name(argument=value, ...)'."""
    changed = {
        key: new
        for key, (_, new) in differences(base, config).items()
        if not key.startswith(UNTOLD) or key.startswith("evals.")
    }
    items = []
    if "method.name" in changed:
        start = "method.args."
        arguments = [
            f"{key.removeprefix(start)}={value!r}"
            for key, value in changed.items()
            if key.startswith(start) and key.removeprefix(start) in config.method.args
        ]
        items.append(f"{config.method.name}({', '.join(arguments)})")
        changed = {k: v for k, v in changed.items() if not k.startswith("method.")}
    items += [f"{key}={value!r}" for key, value in changed.items()]
    return ", ".join(map(code, items))


def picture(text: str, name: str) -> str:
    """A picture in Markdown."""
    return f"![{plain(text)}]({name})"


def code(text: str) -> str:
    """Text as inline code in Markdown."""
    return "`" + text.replace("`", "'") + "`"


def slug(text: str) -> str:
    """Replaces characters that are not safe in the name of a file."""
    return re.sub(r"\W+", "_", text)
