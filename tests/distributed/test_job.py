"""Jobs of several processes: how each finds its place, and, with real ones, that they die together;
`tests/test_elastic.py` has how they stop.
"""

import time

import jax
import pytest
from jax.experimental import multihost_utils

from mae_jax.distributed.job import check_same, check_shared
from mae_jax.distributed.launcher import ProcessSpec, Request, find_process
from mae_jax.distributed.watchdog import Watchdog
from mae_jax.engine.preemption import StopRequests
from mae_jax.types import UserError
from tests.helpers import jobs
from tests.helpers.runs import tiny
from tests.helpers.stores import Memory

FLAGS = dict(coordinator="h:1", processes=4, process=2)
TASK = {
    "SLURM_JOB_ID": "70001",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}
RANK = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}


@pytest.mark.parametrize(
    "request_, variables, place",
    [
        ({}, {}, None),
        (FLAGS, {}, ProcessSpec("h:1", 4, 2, [])),
        (FLAGS | {"local_devices": "2,3"}, {}, ProcessSpec("h:1", 4, 2, [2, 3])),
        (FLAGS | {"processes": 1, "process": 0}, {}, None),
        ({}, TASK | {"CUDA_VISIBLE_DEVICES": "0,1"}, ProcessSpec(None, 4, 3, [1])),
        ({}, TASK | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, ProcessSpec(None, 4, 3, [2, 3])),
        ({}, TASK | {"CUDA_VISIBLE_DEVICES": "1"}, ProcessSpec(None, 4, 3, [])),
        ({}, TASK | {"SLURM_STEP_TASKS_PER_NODE": "3,1"}, ProcessSpec(None, 4, 3, [])),
        ({}, TASK | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
        ({}, {name: TASK[name] for name in list(TASK)[:3]}, None),
        ({"distributed": "off"}, TASK, None),
        ({"coordinator": "h:5"}, TASK, ProcessSpec("h:5", 4, 3, [])),
        ({"coordinator": "h:5"}, RANK, ProcessSpec("h:5", 2, 1, [])),
        ({"distributed": "on"}, {}, ProcessSpec(None, None, None, [])),
        (
            {"processes": 2, "process": 0},
            {"JAX_COORDINATOR_ADDRESS": "h:9"},
            ProcessSpec("h:9", 2, 0, []),
        ),
    ],
)
def test_a_process_finds_its_place(request_, variables, place):
    variables = {"CUDA_VISIBLE_DEVICES": ""} | variables
    assert find_process(Request(**request_), variables) == place


@pytest.mark.parametrize(
    "request_, variables, message",
    [
        ({"processes": 2}, {}, "provides the missing ones: give --coordinator, --process$"),
        ({"coordinator": "h:1"}, {}, "missing ones: give --processes, --process$"),
        (FLAGS | {"process": 4}, {}, "--process 4: must be 0 to 3 with --processes 4"),
        (FLAGS | {"processes": -1}, {}, "--processes -1: must be at least 1"),
        (FLAGS | {"processes": 0}, {}, "--processes 0: must be at least 1"),
        ({"processes": 1, "process": 5}, {}, "--process 5: must be 0 to 0 with --processes 1"),
        (FLAGS | {"coordinator": "host"}, {}, "e.g. node1:1234"),
        (FLAGS | {"local_devices": "0-3"}, {}, "give numbers, e.g. 0,1"),
        (FLAGS | {"distributed": "off"}, {}, "--distributed off and --coordinator: give one"),
        ({"distributed": "off", "local_devices": "0"}, {}, "off and --local-devices"),
        ({"heartbeat_timeout": 0.0}, {}, "--heartbeat-timeout 0: give seconds, 1 to 86400"),
        ({}, TASK | {"CUDA_VISIBLE_DEVICES": "0,1,2"}, "2 processes on this host see 3 GPUs"),
    ],
)
def test_a_place_that_cannot_be(request_, variables, message):
    with pytest.raises(UserError, match=message):
        find_process(Request(**request_), variables)


def test_processes_that_differ_are_named():
    store = Memory()
    one, two = (Watchdog(store, index=index, count=2) for index in (0, 1))
    config = tiny()
    check_same(one, config, {"train": "32 abc"})
    check_same(two, config, {"train": "32 abc"})
    with pytest.raises(UserError, match="config.data.train: '31 abc' here and '32 abc' in proc"):
        check_same(two, config, {"train": "31 abc"})
    with pytest.raises(UserError, match="config.data.batch_size: 16 here and 8 in process 0"):
        check_same(two, tiny("data.batch_size=16"), {"train": "32 abc"})


def test_a_workdir_that_is_not_shared_is_noticed(tmp_path):
    store = Memory()
    one, two = (Watchdog(store, index=index, count=2, timeout=0.2) for index in (0, 1))
    here, there = tmp_path / "here.json", tmp_path / "there.json"
    here.write_text("config")
    check_shared(one, here)
    check_shared(two, here)
    for text in (None, "of another run"):
        if text is not None:
            there.write_text(text)
        with pytest.raises(UserError, match="there.json is not the file that process 0"):
            check_shared(two, there)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault, victim, own, code, says",
    [
        ("mistake", 1, 2, 2, "process 0: ends with process 1: cannot read image 7, seven.png"),
        ("raise", 0, 1, 1, "process 1: ends with process 0: RuntimeError: something broke"),
        ("kill", 0, -9, 1, "process 1: ends with process 0, which coordinates the job"),
        pytest.param(
            *("kill", 1, -9, 1, "process 0: ends with process 1: no heartbeat for 5 s"),
            marks=pytest.mark.thorough,
        ),
        ("freeze", 1, None, 1, "process 0: ends with process 1: no heartbeat for 5 s"),
    ],
)
def test_processes_die_together(tmp_path, fault, victim, own, code, says):
    faults = [fault if index == victim else "none" for index in (0, 1)]
    seconds = 5 if "for 5 s" in says else 120  # who hears why need not wait
    children = jobs.start(tmp_path, faults=faults, seconds=seconds, module="counting")
    jobs.until(lambda: "at step 5" in (tmp_path / f"{victim}.log").read_text())
    began = time.monotonic()
    awaited = (1 - victim,) if own is None else (1 - victim, victim)
    other, *victims = jobs.wait(tmp_path, children, awaited)
    assert other.code == code, other.error
    lines = [line for line in other.error.splitlines() if line.startswith("mae-jax: ")]
    assert len(lines) == 1 and lines[0].startswith(f"mae-jax: {says}"), other.error
    assert ("run again to resume" in lines[0]) == (code == 1)
    assert other.at - began < 60
    assert [ended.code for ended in victims] == ([] if own is None else [own])
    if fault == "raise":
        assert "Traceback" in victims[0].error and "Traceback" not in other.error


def test_a_stop_that_is_said_at_one_step_is_not_forgotten(monkeypatch):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", lambda step: step == 3)
    with StopRequests() as stop:
        assert [stop.requested(step) for step in range(2, 6)] == [False, True, True, True]
