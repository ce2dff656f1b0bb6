"""A job that only adds numbers, one of each process, again and again:
python -m tests.helpers.counting WHAT STEP, then the options of several processes. What
happens at that step is one of `tests.helpers.faulty`.
"""

import argparse
import sys
import time

import jax
import numpy as np

from mae_jax import cli
from mae_jax.cli.commands import job
from mae_jax.cli.failure import explain
from mae_jax.distributed.job import join
from mae_jax.distributed.watchdog import STEP
from mae_jax.engine.mesh import make_mesh, put_batch, replicated
from tests.helpers.faulty import FAULTS

STEPS = 1500


def main():
    """Counts for half a minute, if nothing happens."""
    what, step, *rest = sys.argv[1:]
    parser = argparse.ArgumentParser()
    cli.add_job(parser)
    with join(job(parser.parse_args(rest)), explain, stoppable=True) as watchdog:
        mesh = make_mesh()
        total = jax.jit(lambda batch: batch["one"].sum(), out_shardings=replicated(mesh))
        for done in range(1, STEPS):
            with watchdog.phase(STEP, done):
                found = int(total(put_batch({"one": np.ones(1, np.int32)}, mesh)))
            assert found == watchdog.count
            time.sleep(0.02)
            if done == int(step):
                print(f"at step {done}", flush=True)
                FAULTS[what]()


if __name__ == "__main__":
    main()
