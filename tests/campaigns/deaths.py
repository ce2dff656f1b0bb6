"""Measures how a job of two processes ends when something happens to one of them, and prints a
table in Markdown: python -m tests.campaigns.deaths [--seconds 30] [FAULT ...].

The time is from the fault (a line that the faulty process logs just before) to the end of the other
process. Not a test: with the default of 30 seconds it takes a quarter of an hour.
"""

import argparse
import tempfile
import time
from pathlib import Path

from mae_jax.engine import log
from tests.helpers import faulty, jobs

STEP = 5


def reached(folder, children):
    """When the step before the fault was logged."""
    path = folder / "run" / "metrics.jsonl"
    while not any(line["step"] >= STEP - 1 for line in log.read(path)):
        if all(child.poll() is not None for child in children):
            break
        time.sleep(0.02)
    return time.monotonic()


def measure(fault, victim, seconds):
    """A line of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        faults = [fault if index == victim else "none" for index in (0, 1)]
        options = ["train", "--config=tests/helpers/tiny.py", f"--workdir={folder / 'run'}"]
        options += ["--config.evals.run=", "--config.schedule.epochs=500.0"]
        children = jobs.start(folder, *options, faults=faults, step=STEP, seconds=seconds)
        began = reached(folder, children)
        frozen = fault == "freeze"
        awaited = (1 - victim,) if frozen else (0, 1)
        ended = dict(zip(awaited, jobs.wait(folder, children, awaited), strict=True))
        other = ended[1 - victim]
        said = [x for x in other.error.splitlines() if x.startswith("mae-jax: ")]
        own = "frozen" if frozen else ended[victim].code
        return f"| {fault} | {victim} | {own} | {other.code} | {other.at - began:.1f} | " + (
            f"{said[-1].removeprefix('mae-jax: ') if said else '(nothing)'} |"
        )


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [name for name in faulty.FAULTS if name != "none"]
    parser.add_argument("faults", nargs="*", default=names, metavar="FAULT", help=", ".join(names))
    parser.add_argument("--seconds", type=float, default=30.0, help="--heartbeat-timeout")
    args = parser.parse_args()
    print("| what happens | to process | its exit code | the other's | after s | it says |")
    print("|---|---|---|---|---|---|")
    for fault in args.faults:
        for victim in (0, 1):
            print(measure(fault, victim, args.seconds), flush=True)


if __name__ == "__main__":
    main()
