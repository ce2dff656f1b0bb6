"""Requests to stop: what each signal does, when, and what stays as the shell has set it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mae_jax.engine import preemption
from mae_jax.engine.preemption import StopRequests
from mae_jax.errors import Preempted

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
NAMES = [number.name for number in SIGNALS]


@pytest.fixture(autouse=True)
def as_from_a_terminal():
    """Under nohup and in the background of a script, SIGHUP or SIGINT would be ignored."""
    handlers = signal.default_int_handler, signal.SIG_DFL
    before = [
        signal.signal(number, handler)
        for number, handler in zip((signal.SIGINT, signal.SIGHUP), handlers, strict=True)
    ]
    yield
    for number, handler in zip((signal.SIGINT, signal.SIGHUP), before, strict=True):
        signal.signal(number, handler)


def send(number):
    """A signal to this process, handled when this returns."""
    os.kill(os.getpid(), number)
    time.sleep(0)


@pytest.mark.parametrize("number", SIGNALS, ids=NAMES)
def test_a_request_is_noted_or_ends_what_is_inside(number):
    before = [signal.getsignal(each) for each in SIGNALS]
    with StopRequests() as stop:
        with stop.at_once("outer"), stop.later():
            send(number)
            assert stop.requested(0) and stop.told
        with pytest.raises(Preempted, match="^told before$"), stop.at_once("told before"):
            raise AssertionError("it was told before")
    assert [signal.getsignal(each) for each in SIGNALS] == before
    with StopRequests() as stop:
        with (
            pytest.raises(Preempted, match="^inner$"),
            stop.at_once("outer"),
            stop.at_once("inner"),
        ):
            send(number)
            raise AssertionError("it goes on")
    with StopRequests() as stop:
        with stop.later(), stop.giving_up():
            send(number)
            raise AssertionError("it goes on")
        assert stop.told, "and the code after it goes on"
        with stop.giving_up():
            number = None
        assert number is None, "what comes later is not given up"


def test_a_second_ctrl_c_acts_at_once_and_a_second_hangup_does_not():
    with StopRequests() as stop:
        send(signal.SIGHUP)
        send(signal.SIGHUP)  # the terminal has sent one, and its shell
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert stop.told


def test_what_is_ignored_stays_ignored(monkeypatch):
    before = [signal.signal(number, signal.SIG_IGN) for number in SIGNALS]
    try:
        with StopRequests() as stop:
            for number in (signal.SIGINT, signal.SIGHUP):  # in the background, and under nohup
                send(number)
            assert not stop.told
            send(signal.SIGTERM)
            assert stop.told
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def test_a_command_with_nothing_to_save_just_ends(capfd):
    codes = []
    with StopRequests(codes.append) as stop:
        with stop.at_once("not yet", saved=False), pytest.raises(Preempted):
            send(signal.SIGTERM)
            raise AssertionError("it goes on")
    assert codes == [] and capfd.readouterr().err == ""
    with StopRequests(codes.append) as stop:
        with pytest.raises(Preempted), stop.at_once("stopped before the training"):
            send(signal.SIGTERM)
    assert codes == [75]
    assert "mae-jax: stopped before the training: run again to resume\n" in capfd.readouterr().err


def test_so_it_does_while_compiled_code_keeps_python_from_handling_the_signal(monkeypatch, capfd):
    monkeypatch.setattr(preemption, "PATIENCE", 0.01)
    codes = []

    def arrived(stop):  # what the interpreter does as soon as a signal comes
        os.write(stop._write, bytes([signal.SIGTERM]))
        time.sleep(0.2)

    with StopRequests(codes.append) as stop:
        with stop.later():
            arrived(stop)
    with StopRequests(codes.append) as stop:
        with stop.at_once("evaluating", saved=False):
            arrived(stop)
        assert codes == []
        with stop.at_once("compiling"):
            arrived(stop)
        with stop.later():
            arrived(stop)
    assert codes == [75, 128 + signal.SIGTERM], "the latter for a second one amid the steps"
    assert capfd.readouterr().err == "mae-jax: compiling: run again to resume\n"


@pytest.mark.parametrize(
    ("command", "number"),
    [("train", signal.SIGTERM), ("train", signal.SIGHUP), ("sweep", signal.SIGINT)],
)
def test_a_command_can_be_stopped_from_its_start_on(root, tmp_path, command, number):
    """The signal comes as soon as there is a handler, long before JAX is imported."""
    config = {"train": "tests/helpers/tiny.py", "sweep": "tests/helpers/tiny_sweep.py"}[command]
    line = [sys.executable, "-m", "mae_jax", command, "--config", config, "--workdir", tmp_path]
    process = subprocess.Popen(line, cwd=root, stderr=subprocess.PIPE, text=True)
    until, caught = time.monotonic() + 60, 0
    while not caught & 1 << number - 1:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.005)
        status = open(f"/proc/{process.pid}/status").read()
        handlers = int(status.split("SigCgt:")[1].split()[0], 16)
        # Python itself handles SIGINT from its start on.
        caught = handlers if handlers & 1 << signal.SIGHUP - 1 else 0
    process.send_signal(number)
    error = process.communicate()[1]
    assert process.returncode == 75
    assert error == "mae-jax: stopped before the training: run again to resume\n"
    assert not any(tmp_path.iterdir())
