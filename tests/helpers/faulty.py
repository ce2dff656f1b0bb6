"""`mae-jax` in a process to which something happens at one step:
python -m tests.helpers.faulty WHAT STEP train ..., as the tests and `tests/campaigns/deaths.py`
start it.
"""

import ctypes
import os
import signal
import sys
import time

from mae_jax import cli
from mae_jax.engine import meter
from mae_jax.types import UserError


def fail(text):
    """Raises a fault."""
    raise RuntimeError(text)


def mistake():
    """Raises what a bad image does."""
    raise UserError("cannot read image 7, seven.png: not an image")


def wait():
    """Never comes back."""
    while True:
        time.sleep(0.01)


FAULTS = {
    "none": lambda: None,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "freeze": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "stop": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "raise": lambda: fail("something broke"),
    "mistake": mistake,
    "exit": lambda: sys.exit(0),
    "leave": lambda: os._exit(0),
    "hang": wait,
    "lock": lambda: ctypes.PyDLL(None).sleep(1000),  # sleeps with Python's lock held
}
"""What can happen to a process."""


def main():
    """Patches the place that sees every step, and runs the command."""
    what, step, *arguments = sys.argv[1:]
    stepped = meter.Meter.stepped

    def faulty(self, done, metrics):
        stepped(self, done, metrics)
        if done == int(step):
            FAULTS[what]()

    meter.Meter.stepped = faulty
    cli.main(arguments)


if __name__ == "__main__":
    main()
