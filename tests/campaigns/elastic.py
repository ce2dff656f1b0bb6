"""The same run on other numbers of processes and devices: python -m tests.campaigns.elastic

Real processes on this machine (gloo), with 4 devices in all: 1 x 4, 2 x 2 and 4 x 1, each with
parameters copied ('data'), split ('fsdp') and both ('hybrid'). Prints how far the losses of 20
steps are from those of 1 x 4, and of runs that stop on one layout and go on on another.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from mae_jax.types import PREEMPTED
from tests.helpers.forkserver import Child
from tests.helpers.jobs import environment, free_port
from tests.helpers.runs import CONFIG, losses

MESHES = {"data": (4, 1), "fsdp": (1, 4), "hybrid": (2, 2)}
STEPS = 20
OPTIONS = ["schedule.epochs=5.0", "schedule.warmup_epochs=1.0", "schedule.base_lr=0.01"]


def train(workdir, *, processes, devices, mesh, stop=0):
    """Losses of a run, by step, and the exit codes of its processes.

    Args:
        processes, devices: of the job, and of each process.
        mesh: (data, fsdp).
        stop: step after which the last process gets SIGTERM; 0: none.

    What a process prints is in a file beside the workdir, WORKDIR_INDEX.log.
    """
    options = [*OPTIONS, f"mesh.data={mesh[0]}", f"mesh.fsdp={mesh[1]}"]
    command = ["train", "--config", CONFIG, "--workdir", workdir]
    command += [f"--config.{option}" for option in options]
    where = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", processes]
    children = []
    for index in range(processes):
        job = [*where, "--process", index] if processes > 1 else []
        last = index == processes - 1
        fault = ["stop", stop] if stop and last else ["none", 0]
        children.append(
            Child(
                "tests.helpers.faulty",
                *(*fault, *command, *job),
                env=environment(devices),
                output=workdir.with_name(f"{workdir.name}_{index}.log"),
            )
        )
    codes = [child.wait(timeout=600) for child in children]
    return dict(losses(workdir)), codes


def apart(found, expected):
    """The largest difference of the losses of two runs of the same steps."""
    assert found.keys() == expected.keys() == set(range(1, STEPS + 1)), sorted(found)
    return max(abs(found[step] - expected[step]) for step in expected)


def main():
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    print(
        "| processes x devices | mesh | losses of 20 steps differ by |\n|---|---|---|", flush=True
    )
    with tempfile.TemporaryDirectory() as name:
        folder, worst = Path(name), 0.0
        expected, _ = train(folder / "first", processes=1, devices=4, mesh=MESHES["data"])
        places = [(1, 4), (2, 2), (4, 1)]
        for processes, devices in places:
            for mesh, sizes in MESHES.items():
                workdir = folder / f"{processes}_{mesh}"
                found, codes = train(workdir, processes=processes, devices=devices, mesh=sizes)
                assert codes == [0] * processes, codes
                worst = max(worst, off := apart(found, expected))
                print(f"| {processes} x {devices} | {mesh} | {off:.1e} |", flush=True)
        for (old, new), (first, then) in zip(
            [((4, 1), (1, 4)), ((1, 4), (2, 2)), ((2, 2), (4, 1)), ((2, 2), (1, 1))],
            [("fsdp", "data"), ("hybrid", "fsdp"), ("data", "hybrid"), ("hybrid", "data")],
            strict=True,
        ):
            workdir = folder / f"{old}_{new}"
            sizes = MESHES[then] if new != (1, 1) else (1, 1)
            place = dict(processes=old[0], devices=old[1])
            _, codes = train(workdir, **place, mesh=MESHES[first], stop=7)
            assert codes == [PREEMPTED] * old[0], codes
            found, codes = train(workdir, processes=new[0], devices=new[1], mesh=sizes)
            assert codes == [0] * new[0], codes
            worst = max(worst, off := apart(found, expected))
            text = f"{old[0]} x {old[1]}, then {new[0]} x {new[1]} | {first}, then {then}"
            print(f"| {text} | {off:.1e} |", flush=True)
    sys.exit(worst > 1e-6)


if __name__ == "__main__":
    main()
