"""Many experiments from one file, one after another, each in a process and a workdir of its own.

A name is ROW/COLUMN/SEED: what is compared, under which condition, which repetition. The table has
mean and sample standard deviation over the seeds. Everything is collected from the workdirs, so a
sweep that was stopped goes on where it was, and one that is done is only tabulated again.
"""

import ctypes
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from mae_jax.engine.log import console
from mae_jax.engine.preemption import StopRequests
from mae_jax.report.tables import heading, markdown, shown
from mae_jax.start import origin
from mae_jax.types import PREEMPTED, UserError
from mae_jax.workdir import changes_since, read_config, write


def check(configs: Mapping[str, ConfigDict], workdir: Path) -> None:
    """Raises UserError unless every name is ROW/COLUMN/SEED, and what workdirs hold is of the same
    experiments, from the same starts.
    """
    for name, config in configs.items():
        if len([part for part in name.split("/") if part.strip(".")]) != 3 or name.count("/") != 2:
            raise UserError(f"experiment {name!r}: a name must be ROW/COLUMN/SEED")
        folder, start = workdir / name, config.init_from.path
        changes_since(folder, config.copy_and_resolve_references())
        there = origin(start) if start else None
        if there and (folder / "origin.json").is_file():
            then = json.loads((folder / "origin.json").read_text())
            if then != there:
                raise UserError(
                    f"{folder} started from step {then['step']} of {start}, which is at step "
                    f"{there['step']} and another now: use another --workdir, or remove the folder"
                )


def sweep(
    configs: Mapping[str, ConfigDict], workdir: Path, command: Callable[[str], Sequence[str]]
) -> tuple[dict[str, str], str | None]:
    """Runs what is not done yet. A run that fails does not stop the others.

    Args:
        configs: name -> experiment.
        workdir: each runs in workdir/NAME; what it prints is in workdir/NAME/log.txt.
        command: name -> arguments of a process that runs it.

    Returns:
        Name -> why, of each run that failed; and in which run it was told to stop, if it was.
    """
    failed: dict[str, str] = {}
    with StopRequests() as stop:
        for number, (name, config) in enumerate(configs.items(), 1):
            folder, place = workdir / name, f"[{number}/{len(configs)}] {name}"
            if finished(folder, config):
                continue
            start = time.monotonic()
            code = _run(command(name), folder / "log.txt", workdir / "compiled", stop)
            took = f"{time.monotonic() - start:.0f} s"
            if code == PREEMPTED or stop.requested(0):
                return failed, name
            if code or not finished(folder, config):
                failed[name] = _reason(code, folder / "log.txt")
                _say(f"{place}: failed after {took}: {failed[name]}")
                continue
            values = "  ".join(f"{k} {shown(k, v)}" for k, v in read_results(folder).items())
            _say(f"{place}: {values}  ({took})")
    return failed, None


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def _run(command: Sequence[str], log: Path, compiled: Path, stop: StopRequests) -> int:
    """The exit code of a process, which is told to stop if this one is."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {"JAX_COMPILATION_CACHE_DIR": str(compiled)} | os.environ
    with log.open("a") as file:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C is ours to pass on
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        waited = 0
        while True:
            try:
                return child.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                waited += stop.requested(0)
                # Whoever told us may have told it too, and a second signal would end it at once.
                if waited == 6:
                    child.terminate()


def _end_with_parent() -> None:
    """In the child: if the parent is killed, so is this, or it would hold the workdir."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


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
    if not path.is_file() or not json.loads(path.read_text())["final"]:
        return False
    return read_config(folder).evals.run == config.evals.run


def read_results(folder: Path) -> dict[str, float]:
    """Metric -> value of what a finished run trained (and not of its baselines)."""
    return list(json.loads((folder / "results.json").read_text())["final"].values())[-1]


def collect(configs: Mapping[str, ConfigDict], workdir: Path) -> list[list[str]]:
    """Writes `results.jsonl`, a line for each finished run, and `results.md`, the table of them,
    which it returns.
    """
    records = []
    for name, config in configs.items():
        if finished(workdir / name, config):
            row, column, seed = name.split("/")
            found = json.loads((workdir / name / "results.json").read_text())
            place = dict(row=row, column=column, seed=seed)
            records.append(place | dict(step=found["step"], results=found["final"]))
    workdir.mkdir(parents=True, exist_ok=True)
    write(workdir / "results.jsonl", "\n".join(json.dumps(record) for record in records))
    table = tabulate(records)
    write(workdir / "results.md", markdown(table).rstrip())
    return table


def tabulate(records: Sequence[Mapping]) -> list[list[str]]:
    """Rows of text, the heading first: what is compared and by which metric, then the conditions.

    Args:
        records: lines of `results.jsonl`.
    """
    cells: dict[tuple[str, str, str], list[float]] = {}
    for record in records:
        for metric, value in list(record["results"].values())[-1].items():
            if metric in ("head", "val"):  # how a probe chose is no result
                continue
            cells.setdefault((record["row"], metric, record["column"]), []).append(value)
    columns = list(dict.fromkeys(column for *_, column in cells))
    rows = [["", "metric", *columns]]
    for row, metric in dict.fromkeys((row, metric) for row, metric, _ in cells):
        values = [spread(metric, cells.get((row, metric, column), ())) for column in columns]
        rows.append([row, heading(metric), *values])
    return rows


def spread(metric: str, values: Sequence[float]) -> str:
    """'mean ± sample standard deviation' of repetitions, as shown in tables."""
    if not values:
        return ""
    mean = shown(metric, statistics.fmean(values))
    return f"{mean} ± {shown(metric, statistics.stdev(values))}" if len(values) > 1 else mean
