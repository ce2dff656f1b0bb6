"""The watchdog with processes that are objects: who counts as dead, what is said, which code."""

import json
import threading
import time
from types import SimpleNamespace

import pytest

from mae_jax.cli.commands import explain
from mae_jax.distributed import watchdog as watching
from mae_jax.distributed.watchdog import DONE, INPUT, STEP, Watchdog, stalled
from mae_jax.types import UserError
from tests.helpers.stores import Memory


class Left(BaseException):
    """Instead of the end of this process."""


def leave(code):
    """Instead of os._exit."""
    raise Left(code)


def pair(timeout=0.4):
    """Two processes of a job, their watchdogs not started, and its store."""
    store = Memory()
    options = dict(count=2, timeout=timeout, explain=explain, leave=leave)
    return store, *(Watchdog(store, index=index, **options) for index in (0, 1))


def look(*dogs, rounds=1, elapsed=0.1):
    """What the threads do, so many times."""
    for _ in range(rounds):
        for dog in dogs:
            dog._look(elapsed)


def ends(capsys, code, dog, **options):
    """What a process says that ends at its next look."""
    with pytest.raises(Left, match=f"^{code}$"):
        look(dog, **options)
    return capsys.readouterr().err


def test_a_silent_process_ends_the_job(capsys):
    store, zero, one = pair()
    look(zero, one, rounds=20)
    said = ends(capsys, 1, zero, rounds=6)
    assert said.startswith("mae-jax: process 0: ends with process 1: no heartbeat for 0 s")
    assert "run again to resume" in said
    assert json.loads(store.values["end/1"])[1] == 1
    store, zero, one = pair()
    look(zero, one, rounds=20)
    assert "process 1: ends with process 0: no heartbeat" in ends(capsys, 1, one, rounds=6)


def test_a_process_that_never_spoke_is_silent_too(capsys):
    _, zero, _ = pair()
    assert "process 0: ends with process 1: no heartbeat" in ends(capsys, 1, zero, rounds=6)


def test_a_mistake_reaches_the_others(capsys):
    _, zero, one = pair()
    look(zero, one)
    with pytest.raises(Left, match="^2$"), one.guard():
        raise UserError("cannot read image 7:\nno image")
    assert capsys.readouterr().err == "mae-jax: process 1: cannot read image 7: no image\n"
    said = ends(capsys, 2, zero)
    assert said == "mae-jax: process 0: ends with process 1: cannot read image 7: no image\n"


def test_process_0_leaves_when_all_others_have_read_why():
    store = Memory()
    options = dict(count=3, timeout=20.0, explain=explain, leave=leave)
    zero, one, two = (Watchdog(store, index=index, **options) for index in range(3))
    with pytest.raises(Left), one.guard():
        raise UserError("a bad image")
    codes = []

    def first():
        try:
            look(zero)
        except Left as left:
            codes.append(left.args[0])

    thread = threading.Thread(target=first, daemon=True)
    thread.start()
    thread.join(1)
    assert codes == [], "it has left, and with it the store that process 2 has yet to read"
    with pytest.raises(Left, match="^2$"):
        look(two)
    thread.join(60)
    assert codes == [2]


def test_a_fault_shows_where_it_was(capsys):
    _, zero, one = pair()
    with pytest.raises(Left, match="^1$"), one.guard():
        raise ZeroDivisionError("by zero")
    said = capsys.readouterr().err
    assert "Traceback" in said and "process 1: ZeroDivisionError: by zero; run again" in said
    said = ends(capsys, 1, zero)
    assert "Traceback" not in said and "ends with process 1: ZeroDivisionError: by zero" in said


@pytest.mark.parametrize("error", [ValueError("UNKNOWN: Gloo all-reduce failed: closed by peer")])
def test_who_caused_a_broken_operation_is_waited_for(capsys, error):
    _, zero, one = pair(timeout=60.0)
    errors = []

    def broken():
        try:
            with zero.guard():
                raise error
        except Left as left:
            errors.append(left)

    thread = threading.Thread(target=broken, daemon=True)
    began = time.monotonic()
    thread.start()
    with pytest.raises(Left), one.guard():
        raise UserError("a bad image")
    said = capsys.readouterr().err + ends(capsys, 2, zero)
    assert time.monotonic() - began < zero.timeout, "found out before it had to be told"
    assert "process 0: ends with process 1: a bad image" in said and "Gloo" not in said


def test_what_comes_in_all_processes_passes():
    store, zero, _ = pair()
    with pytest.raises(KeyError), zero.guard(KeyError):
        raise KeyError
    assert not store.all("end")


def test_alone_everything_passes():
    with pytest.raises(UserError), Watchdog() as dog, dog.guard():
        raise UserError("x")
    Watchdog().finish()


def test_process_0_waits_until_the_others_have_read(capsys):
    store, zero, one = pair(timeout=60.0)
    look(zero, one)
    seen = []
    thread = threading.Timer(0.3, lambda: seen.append(store.set("bye/1", "")))
    thread.start()
    with pytest.raises(Left), zero.guard():
        raise UserError("x")
    assert seen, "it left before process 1 had read why"


def pulse(name, seconds, limit=60.0):
    return [1, name, 12, seconds, limit, 0.5]


@pytest.mark.parametrize(
    "pulses, says",
    [
        ([pulse(STEP, 61), pulse(STEP, 62)], "step 12 has not ended in 61 s"),
        ([pulse(STEP, 61), pulse(STEP, 59)], None),
        ([pulse(STEP, 999), pulse(INPUT, 998)], None),
        ([pulse(STEP, 999), pulse("", 0)], None),
        ([pulse(INPUT, 999), pulse(INPUT, 999)], None),
        ([pulse(STEP, 31), pulse(DONE, 33)], "process 1 has finished"),
        ([pulse(STEP, 29), pulse(DONE, 33)], None),
        ([pulse("", 0), pulse(DONE, 999)], None),
        ([pulse(DONE, 999), pulse(DONE, 999)], None),
    ],
)
def test_which_jobs_will_never_go_on(pulses, says):
    found = stalled(dict(enumerate(pulses)), 30.0)
    assert found is None if says is None else says in found


def test_a_hanging_operation_shows_all_stacks(capfd):
    _, zero, one = pair()
    zero._steps = one._steps = 9
    look(zero, one)
    with zero.phase(STEP, 5), one.phase(STEP, 5):
        for dog in (zero, one):
            dog._phase = dog._phase._replace(began=time.monotonic() - 1.7)
        look(one)
        for dog in (zero, one):
            with pytest.raises(Left, match="^1$"):
                look(dog)
            said = capfd.readouterr().err
            assert "test_a_hanging_operation" in said and "most recent call first" in said
            assert f"process {dog.index}: step 5 has not ended in 2 s" in said


def test_no_limit_until_steps_are_known_and_a_wide_one_then(monkeypatch):
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(watching, "time", clock)
    dog = Watchdog(timeout=30.0)
    limits = []
    for seconds in (900, 900, 1, 20, 2):
        with dog.phase(STEP):
            clock.now += seconds
        limits.append(dog.limit)
    assert limits == [watching.DAY, watching.DAY, 120.0, 200.0, 200.0]


def test_a_slow_input_is_said_once_each_time(capsys, monkeypatch):
    monkeypatch.setattr(watching, "INPUT_NOTICE", 0.3)
    monkeypatch.setattr(watching.console, "_file", None)
    said = watching.console.print
    events = [threading.Event(), threading.Event()]
    told = iter(events)
    monkeypatch.setattr(
        watching.console, "print", lambda *a, **b: (said(*a, **b), next(told).set())
    )
    with Watchdog(timeout=1.0) as dog:
        with dog.phase(INPUT, 3, lambda waited: waited / 0.2):
            assert events[0].wait(60)
            time.sleep(0.5)
        with dog.phase(STEP, 3):
            time.sleep(0.5)
        with dog.phase(INPUT, 4):
            pass
        with dog.phase(INPUT, 5):
            assert events[1].wait(60)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2, lines
    assert lines[0].startswith("waiting for the input pipeline for 0 s, before step 3, ")
    assert "% of the time" in lines[0] and "before step 5: raise config.data.workers" in lines[1]
