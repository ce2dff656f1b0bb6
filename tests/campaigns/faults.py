"""A campaign of faults against a small run.

python -m tests.campaigns.faults [--kills 30] [--seed 0] ...

Every run that is disturbed is started again until it ends, and must end bit for bit as the one that
nothing happens to: the same parameters, moments and log lines but for timings. It is killed
(SIGKILL and SIGTERM in turn; every third time while a checkpoint is being written), its newest
checkpoint is damaged, and its disk is full for a while (in a file system of its own: needs root).
Prints a table in Markdown, and exits with 1 if anything was lost. Not a test: it takes a quarter of
an hour.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mae_jax.types import PREEMPTED
from tests.helpers.jobs import ROOT, environment
from tests.helpers.runs import TIMINGS

STEPS = 1200
EVERY = 10
"""Steps between two checkpoints."""


def start(workdir):
    """Starts the run, or lets it go on."""
    options = [f"--config.schedule.epochs={STEPS / 4}", f"--config.checkpoint.every={EVERY}"]
    command = [sys.executable, "-m", "mae_jax", "train", "--config", "tests/helpers/tiny.py"]
    return subprocess.Popen(
        [*command, "--workdir", str(workdir), *options],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(workdir):
    """Exit code and messages of a run that nothing happens to any more."""
    process = start(workdir)
    error = process.communicate()[1]
    return process.returncode, error


def steps(workdir):
    """The checkpoints that are whole."""
    return sorted(int(p.name) for p in workdir.glob("checkpoints/*") if p.name.isdigit())


def result(workdir):
    """What must be the same: digests of all leaves at the end, and every log line once."""
    leaves = workdir / "checkpoints" / str(STEPS) / "leaves" / "metadata"
    lines = {}
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        kind = "loss" in entry
        lines[entry["step"], kind] = {k: v for k, v in entry.items() if k not in TIMINGS}
    return json.loads(leaves.read_text()), lines


def reached(workdir, process, step):
    """Waits until a checkpoint after `step` is there, or the process has ended."""
    while process.poll() is None and not any(s > step for s in steps(workdir)):
        time.sleep(0.005)


def writing(workdir, process):
    """Waits until a checkpoint is being written; whether it is."""
    until = time.monotonic() + 5
    while process.poll() is None and time.monotonic() < until:
        if any(workdir.glob("checkpoints/*tmp*")):
            return True
        time.sleep(0.001)
    return False


class Campaign:
    """Counts what happened and how it ended."""

    def __init__(self, folder, seed):
        self.folder, self.random, self.rows, self.runs = folder, random.Random(seed), {}, 0
        self.expected = None

    def workdir(self):
        """A new one."""
        self.runs += 1
        return self.folder / f"run_{self.runs}"

    def note(self, what, good):
        """Counts one fault."""
        right, all_ = self.rows.get(what, (0, 0))
        self.rows[what] = right + bool(good), all_ + 1
        print(f"{what}: {'as it should be' if good else 'WRONG'}", flush=True)

    def check(self, what, workdir):
        """Compares a run that has ended with the undisturbed one."""
        self.note(what, result(workdir) == self.expected)

    def kill(self, count):
        """So many kills, of one run after another."""
        left = count
        while left:
            workdir = self.workdir()
            while True:
                process, last = start(workdir), max(steps(workdir), default=0)
                reached(workdir, process, last)
                if left:
                    amid = left % 3 == 0
                    time.sleep(0 if amid else self.random.uniform(0, 1.5))
                    amid = amid and writing(workdir, process)
                if left and process.poll() is None:
                    term, left = left % 2 == 0, left - 1
                    process.send_signal(signal.SIGTERM if term else signal.SIGKILL)
                    error = process.communicate()[1]
                    allowed = {PREEMPTED, 0} if term else {-signal.SIGKILL}
                    name = f"{'SIGTERM' if term else 'SIGKILL'}{', amid a save' if amid else ''}"
                    self.note(name, process.returncode in allowed)
                    if process.returncode != 0:
                        continue
                if process.returncode is None:
                    error = process.communicate()[1]
                if process.returncode != 0:
                    self.note(f"start again ({error.strip()[-200:]})", False)
                    return
                break
            self.check("run after kills ends bit for bit the same", workdir)

    def partial(self):
        """The workdir of a run that was told to stop with several checkpoints."""
        workdir = self.workdir()
        process = start(workdir)
        reached(workdir, process, STEPS // 3)
        process.terminate()
        process.communicate()
        return workdir

    def damage(self, kind):
        """Damages the newest checkpoint, and lets the run go on."""
        workdir = self.partial()
        newest = workdir / "checkpoints" / str(steps(workdir)[-1])
        data = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        content = bytearray(data.read_bytes())
        if kind == "truncated":
            data.write_bytes(content[: len(content) // 2])
        elif kind == "bit flipped":
            content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
            data.write_bytes(content)
        elif kind == "data missing":
            data.unlink()
        elif kind == "metadata missing":
            (newest / "state" / "_METADATA").unlink()
        else:
            (newest / "leaves" / "metadata").write_text("{")
        code, error = finish(workdir)
        aside = list(workdir.glob("checkpoints/broken-*"))
        said = "unreadable" in error and "trying the one before" in error
        self.note(f"checkpoint {kind}: said and set aside", code == 0 and aside and said)
        self.check(f"checkpoint {kind}: ends bit for bit the same", workdir)

    def fill(self, when):
        """Fills the disk before the run starts, or in its midst, and later makes room."""
        with tempfile.TemporaryDirectory() as mount:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", mount], check=True)
            try:
                workdir = Path(mount, "run")
                ballast = Path(mount, "ballast")
                if when == "from the start":
                    fill(ballast)
                process = start(workdir)
                if when == "in the midst":
                    reached(workdir, process, STEPS // 3)
                    fill(ballast)
                error = process.communicate()[1]
                good = process.returncode == 2 and "disk full" in error
                good = good or "No space left on device" in error and process.returncode == 2
                self.note(f"disk full {when}: exit 2 and one line", good)
                ballast.unlink()
                code, _ = finish(workdir)
                self.note(f"disk full {when}: goes on with room", code == 0)
                self.check(f"disk full {when}: ends bit for bit the same", workdir)
            finally:
                subprocess.run(["umount", "-l", mount], check=True)


def fill(path):
    """Writes until there is no room."""
    try:
        with path.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        pass


def main():
    """Everything, and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for the workdirs (default: a temporary one)")
    args = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        campaign = Campaign(args.folder or Path(temporary), args.seed)
        workdir = campaign.workdir()
        code, error = finish(workdir)
        assert code == 0, error
        campaign.expected = result(workdir)
        campaign.kill(args.kills)
        for kind in (
            "truncated",
            "bit flipped",
            "data missing",
            "metadata missing",
            "digests missing",
        ):
            campaign.damage(kind)
        if os.geteuid() == 0:
            campaign.fill("from the start")
            campaign.fill("in the midst")
        else:
            print("disk full: left out, it needs root to mount a small file system")
    print("\n| fault | as it should be |\n|---|---|")
    for name, (right, all_) in campaign.rows.items():
        print(f"| {name} | {right} of {all_} |")
    print(f"\n{time.monotonic() - begun:.0f} s")
    sys.exit(any(right < all_ for right, all_ in campaign.rows.values()))


if __name__ == "__main__":
    main()
