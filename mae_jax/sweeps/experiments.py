"""Runs the experiments of one file, each in its own process and workdir.

A name is ROW/COLUMN/SEED: what is compared, the condition, and the repetition. The table has mean
and sample standard deviation over the seeds. All results are read from the workdirs, so a stopped
sweep resumes, and a finished one is only tabulated again.

An experiment may load weights from others: a path in config.init_from is then a name. It starts
when these have results, which therefore need evaluators.
"""

import itertools
import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from mae_jax import standardize
from mae_jax.engine.log import console
from mae_jax.engine.preemption import StopRequests
from mae_jax.json_files import has, read_json
from mae_jax.spec import nearest
from mae_jax.sweeps.comparison import Finished, comparison_table, declared
from mae_jax.sweeps.pool import Share, launch, schedule
from mae_jax.tables import heading, markdown, shown, spread
from mae_jax.types import UserError
from mae_jax.weights import image_of
from mae_jax.weights.init_from import origin
from mae_jax.workdir import changes_since, read_config, read_results, recorded, write

WIDE = 6
"""Columns of numbers that fit a terminal."""


def link(configs: Mapping[str, ConfigDict], workdir: Path) -> dict[str, tuple[str, ...]]:
    """Replaces names of experiments in the section init_from by their workdirs.

    Returns:
        Name -> names of the experiments that it starts from, for those that start from others.

    Raises:
        UserError: experiments start from each other in a cycle.
    """
    sections = {name: list(_sections(config).values()) for name, config in configs.items()}
    starts = {
        name: tuple(section.path for section in found if section.path in configs)
        for name, found in sections.items()
    }
    starts = {name: found for name, found in starts.items() if found}
    for name in starts:
        _check_no_cycle([name], starts)
    for section in itertools.chain(*sections.values()):
        if section.path in configs:
            section.path = str(workdir / section.path)
    return starts


def _sections(config: ConfigDict) -> dict[str, ConfigDict]:
    """Key of the config -> section with the path of weights: init_from and what it contains."""
    named = {f"init_from.{name}": section for name, section in config.init_from.items()}
    found = {"init_from": config.init_from, **named}
    return {key: one for key, one in found.items() if isinstance(one, ConfigDict) and "path" in one}


def _check_no_cycle(chain: Sequence[str], starts: Mapping[str, Sequence[str]]) -> None:
    """Raises UserError if the last of a chain of experiments, each of which starts from the next,
    starts from one of them.
    """
    for start in starts.get(chain[-1], ()):
        if start in chain:
            raise UserError(
                f"config.init_from.path has a cycle, {' from '.join([*chain, start])}: one of "
                "these experiments must start from none of the others"
            )
        _check_no_cycle([*chain, start], starts)


def check(configs: Mapping[str, ConfigDict], workdir: Path) -> None:
    """Raises UserError unless every name is ROW/COLUMN/SEED, and existing workdirs have the same
    configs and initial weights.
    """
    for name, config in configs.items():
        if len([part for part in name.split("/") if part.strip(".")]) != 3 or name.count("/") != 2:
            raise UserError(f"experiment {name!r}: a name must be ROW/COLUMN/SEED")
        folder = workdir / name
        changes_since(folder, _adopted(config.copy_and_resolve_references(), folder))
        if (folder / "origin.json").is_file():
            _check_origins(folder, config)


def _check_origins(folder: Path, config: ConfigDict) -> None:
    """Raises UserError if weights that a run started from have changed since."""
    way_out = "remove it to start from the current weights, or use another --workdir"
    check = lambda record: has(record, "step", "digest") or has(record, "more")
    record = read_json(folder / "origin.json", way_out, check)
    for key, section in _sections(config).items():
        old = record if key == "init_from" else record.get("more", {}).get(key)
        new = origin(section.path) if section.path else None
        if new and old and {key: old[key] for key in new} != new:
            raise UserError(
                f"{folder} started from {section.path} at step {old['step']}, which has changed "
                f"since (now step {new['step']}): use another --workdir, or remove the folder"
            )


def _adopted(config: ConfigDict, folder: Path) -> ConfigDict:
    """The config with the mean and std that a workdir recorded, if the data determines them."""
    image, values = image_of(folder), recorded(folder)
    if image and values:
        origin = standardize.Origin("as recorded", lambda: values)
        args = config.method.args
        resolved, _ = standardize.resolve(args, channels=image[-1], origins=[origin])
        with config.ignore_type():
            args.update(resolved)
    return config


def listing(configs: Mapping[str, ConfigDict], workdir: Path) -> str:
    """A line 'NUMBER NAME STATE' for each experiment: 'done' or 'not yet'."""
    done = [finished(workdir / name, config) for name, config in configs.items()]
    lines = zip(range(1, len(done) + 1), configs, done, strict=True)
    return "\n".join(f"{n} {name} {'done' if is_ else 'not yet'}" for n, name, is_ in lines)


def chosen(
    only: str,
    configs: Mapping[str, ConfigDict],
    starts: Mapping[str, Sequence[str]],
    workdir: Path,
) -> str:
    """The name of the experiment in --only, a name or a number in the order of the file, from 1.

    Raises:
        UserError: there is no such experiment, or the one that it starts from is not finished.
    """
    name = only
    if only.lstrip("-").isdecimal():
        if not 1 <= int(only) <= len(configs):
            raise UserError(f"--only {only}: the experiments have the numbers 1 to {len(configs)}")
        name = list(configs)[int(only) - 1]
    if name not in configs:
        raise UserError(f"--only {only}: no such experiment{nearest(only, configs)}")
    for start in starts.get(name, ()):
        if not finished(workdir / start, configs[start]):
            raise UserError(
                f"--only {only}: {start}, which it starts from, is not finished: run --only {start}"
            )
    return name


def sweep(
    configs: Mapping[str, ConfigDict],
    workdir: Path,
    command: Callable[[str], Sequence[str]],
    *,
    starts: Mapping[str, Sequence[str]],
    shares: Sequence[Share],
    stop: StopRequests | None = None,
) -> tuple[dict[str, str], list[str]]:
    """Runs the unfinished experiments. A failure skips only experiments that start from that one.

    Args:
        configs: name -> experiment.
        workdir: an experiment runs in workdir/NAME and prints into workdir/NAME/log.txt.
        command: name -> command line of the process that runs it.
        starts: name -> names of the experiments that it starts from, as `link` returns them.
        shares: one per process at a time, as `pool.shares` returns them.
        stop: requests to stop, if signals are handled already.

    Returns:
        Name -> reason of each failure; and the names still to run, if stopped.
    """
    # Processes may share JAX's cache: one that reads an incomplete entry compiles by itself.
    compiled = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(workdir / "compiled"))

    def begin(name: str, share: Share) -> subprocess.Popen:
        environment = {"JAX_COMPILATION_CACHE_DIR": compiled}
        return launch(command(name), workdir / name / "log.txt", environment, share)

    def judge(name: str, code: int) -> tuple[bool, str]:
        folder = workdir / name
        if code or not finished(folder, configs[name]):
            return False, _reason(code, folder / "log.txt")
        results = read_results(folder / "results.json")
        own, metrics = list(results["final"].values())[-1], results["metrics"]
        return True, "  ".join(f"{name} {shown(metrics[name], own[name])}" for name in own)

    def glance(name: str) -> str:
        line = _last_line(workdir / name / "log.txt")
        return line if line.startswith(("step ", "evaluating ")) else ""

    def say(name: str, text: str) -> None:
        label = f"[{list(configs).index(name) + 1}/{len(configs)}] {name}"
        console.print(f"{label}: {text}", highlight=False, soft_wrap=True)

    todo = [name for name, config in configs.items() if not finished(workdir / name, config)]
    how = dict(shares=shares, begin=begin, glance=glance, judge=judge, say=say, stop=stop)
    return schedule(todo, after=starts, **how)


def _reason(code: int, log: Path) -> str:
    """Why a run failed: the signal that killed it, or its last line of output."""
    if code < 0:
        memory = ", as when memory runs out" if -code == signal.SIGKILL else ""
        return f"killed by {signal.Signals(-code).name}{memory}"
    if code == 0:
        return "it has no results: config.evals.run is empty"
    return _last_line(log).removeprefix("mae-jax: ") or "no output"


def _last_line(log: Path) -> str:
    """The last line of output that is not empty; '' if there is none."""
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return next((line for line in reversed(lines) if line.strip()), "")


def finished(folder: Path, config: ConfigDict) -> bool:
    """Whether a workdir has final results by the evaluators of this config."""
    path = folder / "results.json"
    try:
        results = read_results(path) if path.is_file() else {}
    except UserError:  # the run evaluates once more, and sets the damaged file aside
        return False
    if not results.get("final"):
        return False
    # Older results do not name their evaluators.
    evaluators = results.get("evaluators") or read_config(folder).evals.run
    return evaluators == config.evals.run


def collect(configs: Mapping[str, ConfigDict], workdir: Path) -> list[list[str]]:
    """Writes `experiments.json` (all names), `results.jsonl` (a line for each finished run) and
    `results.md` (their table). Returns the table.
    """
    runs = []
    for name, config in configs.items():
        if finished(workdir / name, config):
            content = read_results(workdir / name / "results.json")
            key = dict(zip(("row", "column", "seed"), name.split("/"), strict=True))
            results, metrics = content["final"], content["metrics"]
            runs.append(Finished(**key, step=content["step"], results=results, metrics=metrics))
    workdir.mkdir(parents=True, exist_ok=True)
    write(workdir / "experiments.json", json.dumps(list(configs), indent=0))
    write(workdir / "results.jsonl", "\n".join(json.dumps(run.record()) for run in runs))
    table = tabulate(runs)
    write(workdir / "results.md", markdown(table).rstrip())
    return table


def tabulate(runs: Sequence[Finished]) -> list[list[str]]:
    """Rows of text, the heading first: the main metrics by column, for each row of the sweep and
    then its baselines. If these have more than `WIDE` columns, or there are none: a line for each
    metric of a row, of all metrics that are declared for a table, and no baselines.
    """
    table = comparison_table(runs, terminal=True)
    if table and len(table[0]) <= 1 + WIDE:
        return table
    metrics = declared(runs)
    cells: dict[tuple[str, str, str], list[float]] = {}
    for run in runs:
        for name, value in run.own.items():
            if metrics[name].table:
                cells.setdefault((run.row, name, run.column), []).append(value)
    columns = list(dict.fromkeys(column for *_, column in cells))
    rows = [["", "metric", *columns]]
    for row, name in dict.fromkeys((row, name) for row, name, _ in cells):
        metric = metrics[name]
        values = [spread(metric, cells.get((row, name, column), ())) for column in columns]
        rows.append([row, heading(name, metric), *values])
    return rows
