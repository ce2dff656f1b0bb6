"""The tests' forked children behave like `python -m`."""

import os
import signal
import subprocess

import pytest

from tests.helpers import forkserver
from tests.helpers.forkserver import Child
from tests.helpers.jobs import DEADLINE, environment


def child(folder, code, *arguments, **options):
    """A child that runs these lines."""
    (folder / "lines.py").write_text(code)
    return Child("lines", *arguments, cwd=folder, env=environment() | {"MINE": "here"}, **options)


def test_arguments_variables_folder_and_output(tmp_path):
    code = (
        "import atexit, os, sys, threading, time\n"
        "print(*sys.argv[1:], os.environ['MINE'], os.getcwd(), __name__)\n"
        "print('careful', file=sys.stderr)\n"
        "atexit.register(print, 'at the end')\n"
        "threading.Timer(0.1, print, ['a thread']).start()\n"
        "assert 'jax' in sys.modules, 'it should start warm'\n"
    )
    process = child(tmp_path, code, "a b", 3)
    output, error = process.communicate(DEADLINE)
    assert (
        output == f"a b 3 here {tmp_path} __main__\na thread\nat the end\n" and not process.poll()
    )
    assert error == "careful\n"


@pytest.mark.parametrize(
    ("code", "ended", "says"),
    [
        ("raise SystemExit(75)", 75, ""),
        ("raise SystemExit('no luck')", 1, "no luck"),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("import os; os.abort()", -signal.SIGABRT, ""),
    ],
)
def test_how_it_ends(tmp_path, code, ended, says):
    process = child(tmp_path, code, output=tmp_path / "log")
    assert process.wait(DEADLINE) == ended and says in (tmp_path / "log").read_text()


def test_signals_reach_it_and_it_alone(tmp_path):
    lines = "import time\nprint('ready', flush=True)\ntime.sleep(600)\n"
    processes = [child(tmp_path, lines) for _ in range(2)]
    with pytest.raises(subprocess.TimeoutExpired):
        processes[0].wait(0.05)
    processes[0].terminate()
    assert processes[0].wait(DEADLINE) == -signal.SIGTERM and processes[1].poll() is None
    processes[1].kill()
    assert processes[1].wait(DEADLINE) == -signal.SIGKILL
    processes[1].kill()  # it has ended: nothing to do
    with pytest.raises(ProcessLookupError):
        os.kill(processes[1].pid, 0)


def test_what_it_uses_is_measured(tmp_path):
    before = forkserver.used()
    child(tmp_path, "import time\nwhile time.process_time() < 0.5: pass\n").wait(DEADLINE)
    assert 0.4 < forkserver.used() - before < 5
