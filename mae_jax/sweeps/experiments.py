"""Many experiments from one file, each in a process and a workdir of its own.

A name is ROW/COLUMN/SEED: what is compared, under which condition, which repetition. The table has
mean and sample standard deviation over the seeds. Everything is collected from the workdirs, so a
sweep that was stopped goes on where it was, and one that is done is only tabulated again.

An experiment may start from another of the file: config.init_from.path is then the name of that,
and it waits until that has results; so that needs evaluators, too.
"""

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
from mae_jax.spec import nearest
from mae_jax.sweeps.comparison import Finished, declared
from mae_jax.sweeps.pool import launch, schedule
from mae_jax.tables import heading, markdown, shown, spread
from mae_jax.types import UserError
from mae_jax.weights import image_of
from mae_jax.weights.init_from import origin
from mae_jax.workdir import (
    changes_since,
    has,
    read_config,
    read_json,
    read_results,
    recorded,
    write,
)


def link(configs: Mapping[str, ConfigDict], workdir: Path) -> dict[str, str]:
    """Where config.init_from.path is the name of another experiment, makes it the workdir of that.

    Returns:
        Name -> name of what it starts from, of the experiments that start from another.

    Raises:
        UserError: an experiment would wait for itself.
    """
    paths = {name: config.init_from.path for name, config in configs.items()}
    starts = {name: path for name, path in paths.items() if path in configs}
    for name in starts:
        chain = [name]
        while chain[-1] in starts:
            chain.append(starts[chain[-1]])
            if chain[-1] in chain[:-1]:
                raise UserError(
                    f"config.init_from.path goes in a circle: {' from '.join(chain)}: one of these "
                    "experiments must start from none of the others"
                )
    for name, start in starts.items():
        configs[name].init_from.path = str(workdir / start)
    return starts


def check(configs: Mapping[str, ConfigDict], workdir: Path) -> None:
    """Raises UserError unless every name is ROW/COLUMN/SEED, and what workdirs hold is of the same
    experiments, from the same starts.
    """
    for name, config in configs.items():
        if len([part for part in name.split("/") if part.strip(".")]) != 3 or name.count("/") != 2:
            raise UserError(f"experiment {name!r}: a name must be ROW/COLUMN/SEED")
        folder, start = workdir / name, config.init_from.path
        changes_since(folder, _adopted(config.copy_and_resolve_references(), folder))
        if start and (folder / "origin.json").is_file():
            way_out = "remove it to take the start as it is now, or use another --workdir"
            check = lambda found: has(found, "step", "digest")
            then = read_json(folder / "origin.json", way_out, check)
            there = origin(start)
            if there and {key: then[key] for key in there} != there:
                raise UserError(
                    f"{folder} started from {start} as it was (step {then['step']}), which is "
                    f"another now (step {there['step']}): use another --workdir, or remove the "
                    "folder"
                )


def _adopted(config: ConfigDict, folder: Path) -> ConfigDict:
    """The config with the mean and standard deviation that a workdir has recorded, where they
    follow the data.
    """
    image, values = image_of(folder), recorded(folder)
    if image and values:
        origin = standardize.Origin("as recorded", lambda: values)
        args = config.method.args
        found, _ = standardize.resolve(args, channels=image[-1], origins=[origin])
        with config.ignore_type():
            args.update(found)
    return config


def listing(configs: Mapping[str, ConfigDict], workdir: Path) -> str:
    """A line 'NUMBER NAME STATE' for each experiment: 'done' or 'not yet'."""
    done = [finished(workdir / name, config) for name, config in configs.items()]
    lines = zip(range(1, len(done) + 1), configs, done, strict=True)
    return "\n".join(f"{n} {name} {'done' if is_ else 'not yet'}" for n, name, is_ in lines)


def chosen(
    only: str, configs: Mapping[str, ConfigDict], starts: Mapping[str, str], workdir: Path
) -> str:
    """The name of one experiment, told by its name or by its number in the file, from 1 on.

    Raises:
        UserError: there is no such one, or what it starts from is not finished.
    """
    name = only
    if only.lstrip("-").isdecimal():
        if not 1 <= int(only) <= len(configs):
            raise UserError(f"--only {only}: the experiments have the numbers 1 to {len(configs)}")
        name = list(configs)[int(only) - 1]
    if name not in configs:
        raise UserError(f"--only {only}: no such experiment{nearest(only, configs)}")
    start = starts.get(name)
    if start and not finished(workdir / start, configs[start]):
        raise UserError(
            f"--only {only}: its start {start} is not finished: run it first, --only {start}"
        )
    return name


def sweep(
    configs: Mapping[str, ConfigDict],
    workdir: Path,
    command: Callable[[str], Sequence[str]],
    *,
    starts: Mapping[str, str],
    devices: Sequence[str | None],
    stop: StopRequests | None = None,
) -> tuple[dict[str, str], list[str]]:
    """Runs what is not done yet. A run that fails stops only those that start from it.

    Args:
        configs: name -> experiment.
        workdir: each runs in workdir/NAME; what it prints is in workdir/NAME/log.txt.
        command: name -> arguments of a process that runs it.
        starts: name -> name of what it starts from, as `link` returns it.
        devices: so many run at a time, each with one of these, as `pool.devices` returns them.
        stop: requests to stop, if they are handled already.

    Returns:
        Name -> why, of each run that failed; and the runs still to do, if it was told to stop.
    """
    # JAX's cache may be shared: who reads an entry while another writes it compiles for itself.
    compiled = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(workdir / "compiled"))

    def begin(name: str, device: str | None) -> subprocess.Popen:
        environment = {"JAX_COMPILATION_CACHE_DIR": compiled, "CUDA_VISIBLE_DEVICES": device}
        return launch(command(name), workdir / name / "log.txt", environment)

    def judge(name: str, code: int) -> tuple[bool, str]:
        folder = workdir / name
        if code or not finished(folder, configs[name]):
            return False, _reason(code, folder / "log.txt")
        found = read_results(folder / "results.json")
        own, metrics = list(found["final"].values())[-1], found["metrics"]
        return True, "  ".join(f"{name} {shown(metrics[name], own[name])}" for name in own)

    def say(name: str, text: str) -> None:
        place = f"[{list(configs).index(name) + 1}/{len(configs)}] {name}"
        console.print(f"{place}: {text}", highlight=False, soft_wrap=True)

    todo = [name for name, config in configs.items() if not finished(workdir / name, config)]
    how = dict(devices=devices, begin=begin, judge=judge, say=say, stop=stop)
    return schedule(todo, after=starts, **how)


def _reason(code: int, log: Path) -> str:
    """Why a run failed: the signal that ended it, or the last line that it wrote."""
    if code < 0:
        memory = ", as when memory runs out" if -code == signal.SIGKILL else ""
        return f"killed by {signal.Signals(-code).name}{memory}"
    if code == 0:
        return "it has no results: config.evals.run is empty"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("mae-jax: ") if lines else "no output"


def finished(folder: Path, config: ConfigDict) -> bool:
    """Whether a workdir holds the results of this experiment, by these evaluators."""
    path = folder / "results.json"
    try:
        found = read_results(path) if path.is_file() else {}
    except UserError:  # the run evaluates once more, and sets the damaged file aside
        return False
    if not found.get("final"):
        return False
    # Older results do not name their evaluators.
    ended_by = found.get("evaluators") or read_config(folder).evals.run
    return ended_by == config.evals.run


def collect(configs: Mapping[str, ConfigDict], workdir: Path) -> list[list[str]]:
    """Writes `experiments.json`, the names of all, `results.jsonl`, a line for each finished run,
    and `results.md`, the table of them, which it returns.
    """
    runs = []
    for name, config in configs.items():
        if finished(workdir / name, config):
            found = read_results(workdir / name / "results.json")
            place = dict(zip(("row", "column", "seed"), name.split("/"), strict=True))
            values = dict(step=found["step"], results=found["final"], metrics=found["metrics"])
            runs.append(Finished(**place, **values))
    workdir.mkdir(parents=True, exist_ok=True)
    write(workdir / "experiments.json", json.dumps(list(configs), indent=0))
    write(workdir / "results.jsonl", "\n".join(json.dumps(run.record()) for run in runs))
    table = tabulate(runs)
    write(workdir / "results.md", markdown(table).rstrip())
    return table


def tabulate(runs: Sequence[Finished]) -> list[list[str]]:
    """Rows of text, the heading first: what is compared and by which metric, then the conditions.
    Metrics that are in no comparison are left out.
    """
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
