"""Whole small runs: exact resume after any end, two meshes, divergence, both input pipelines."""

import json
import random
import shutil
import signal

import jax
import numpy as np
import pytest
from PIL import Image

from mae_jax.engine import log
from mae_jax.engine.meter import Diverged
from mae_jax.restore import load_run
from mae_jax.run import build
from mae_jax.train import train
from mae_jax.types import UserError
from mae_jax.workdir import lock
from tests.helpers.forkserver import Child
from tests.helpers.jobs import DEADLINE, environment, until
from tests.helpers.runs import CONFIG, losses, tiny, whole_log

EVALUATED = ("evals.run=knn(k=3)", "evals.every=20")


def assert_same_leaves(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The workdir of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole")
    train(tiny(*EVALUATED, "evals.figures=auto"), workdir)
    return workdir


def start(workdir, fault="none", step=0):
    """The same run in a process to which something happens, see `tests/helpers/faulty.py`."""
    options = [f"--config.{option}" for option in EVALUATED]
    command = [fault, step, "train", "--config", CONFIG, "--workdir", workdir, *options]
    return Child("tests.helpers.faulty", *command, env=environment(devices=2))


def final(workdir):
    """Parameters and moments at the end of a run."""
    _, state = load_run(workdir)
    assert int(state.step) == 40
    return state


@pytest.mark.slow
def test_killed_and_told_to_stop_it_ends_bit_for_bit_the_same(whole, tmp_path):
    # Killed at any moment after a random step. It cannot end before: it freezes at a later one.
    step = random.randint(3, 33)
    process = start(tmp_path, "freeze", 38)
    until(lambda: any(done >= step for done, _ in losses(tmp_path)), process)
    process.kill()
    assert process.wait(DEADLINE) == -signal.SIGKILL
    assert not (tmp_path / "results.json").exists()

    process = start(tmp_path, "stop", 35)
    _, error = process.communicate(DEADLINE)
    assert process.returncode == 75 and "run again to resume" in error
    assert "Traceback" not in error
    _, state = load_run(tmp_path)
    assert 35 <= int(state.step) < 40 and int(state.step) == losses(tmp_path)[-1][0]

    process = start(tmp_path)
    _, error = process.communicate(DEADLINE)
    assert process.returncode == 0 and f"resuming from step {state.step}" in error, error
    assert whole_log(tmp_path) == whole_log(whole)
    assert [step for step, _ in losses(tmp_path)] == list(range(1, 41))
    assert_same_leaves(final(tmp_path), final(whole))


def test_a_run_learns_evaluates_and_draws(whole):
    seen = [loss for _, loss in losses(whole)]
    assert np.mean(seen[-8:]) < np.mean(seen[:8])
    evaluated = [line for line in log.read(whole / "metrics.jsonl") if "eval/knn" in line]
    assert [line["step"] for line in evaluated] == [0, 20, 40]
    results = json.loads((whole / "results.json").read_text())["results"]
    assert list(results) == ["raw pixels", "random encoder", "mae"]
    assert results["mae"]["knn"] == evaluated[-1]["eval/knn"]
    assert results["random encoder"]["knn"] == evaluated[0]["eval/knn"]
    for name in ("curves.png", "reconstructions.png"):
        assert (whole / "figures" / name).read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
@pytest.mark.thorough
def test_a_split_state_gives_the_same_run(whole, tmp_path):
    """And so does one that goes on from it with another mesh."""
    train(tiny("mesh.fsdp=2"), tmp_path)
    found, expected = losses(tmp_path), losses(whole)
    assert len(found) == 40
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    shutil.rmtree(tmp_path / "checkpoints" / "40")
    train(tiny("mesh.fsdp=1"), tmp_path)
    again = losses(tmp_path)
    assert len(again) == 40 and again[:30] == found[:30]
    np.testing.assert_allclose(again, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.thorough  # test_sources.py has a shorter run of both
def test_both_pipelines_give_bit_for_bit_the_same_run(whole, tmp_path):
    train(tiny("data.pipeline=tf"), tmp_path)
    assert losses(tmp_path) == losses(whole)


def test_divergence_stops_the_run_and_keeps_the_good_state(tmp_path):
    config = tiny("schedule.base_lr=1e30", "max_skipped=5", "checkpoint.every=2")
    with pytest.raises(Diverged, match="not finite for 5 steps in a row"):
        train(config, tmp_path)
    skipped = [line["step"] for line in log.read(tmp_path / "metrics.jsonl") if line["skipped"]]
    _, state = load_run(tmp_path)
    assert 0 < int(state.step) < skipped[0]
    assert int(state.skips.total) == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


def test_a_workdir_belongs_to_one_config(whole, tmp_path):
    workdir = shutil.copytree(whole, tmp_path / "run")
    before = (workdir / "config.json").read_text()
    with pytest.raises(UserError, match=r"method.args.mask_ratio: 0.75 there, 0.5 now"):
        train(tiny(*EVALUATED, "method.args.mask_ratio=0.5"), workdir)
    assert (workdir / "config.json").read_text() == before
    train(tiny(*EVALUATED, "log.every=2", "checkpoint.keep=3"), workdir)


def test_a_workdir_belongs_to_one_run_at_a_time(tmp_path):
    with lock(tmp_path), pytest.raises(UserError, match="another run is using"):
        train(tiny("schedule.epochs=1.0"), tmp_path)


def test_the_classes_of_both_splits_are_the_same(tmp_path):
    for split, name in (("train", "cat"), ("train", "dog"), ("test", "eel")):
        (tmp_path / split / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / split / name / "0.png")
    folders = [f"data.{s}=folder({str(tmp_path / s)!r})" for s in ("train", "test")]
    with pytest.raises(UserError, match="differ: eel only in the latter"):
        build(tiny(*folders))


def test_a_log_cut_short_is_mended(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n{"step": 3, "lo')
    assert [line["step"] for line in log.read(path)] == [1, 2]
    log.drop_after(path, 1)
    assert path.read_text() == '{"step": 1, "loss": 2.0}\n'


@pytest.mark.slow
@pytest.mark.thorough  # the commands are told of a bad image in test_cli.py
def test_a_bad_image_stops_a_run_that_skipping_lets_go_on(tmp_path):
    """But not with other images."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(100):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{i:02}.png")
    (folder / "50.png").write_bytes(b"<html>")
    change = ("data.test=", f"data.train=folder({str(folder)!r})", "schedule.epochs=1.0")
    with pytest.raises(UserError, match="cannot read image 50, 50.png"):
        train(tiny(*change, "schedule.warmup_epochs=0.0"), tmp_path / "run")
    reached = losses(tmp_path / "run")[-1][0]
    change += ("schedule.warmup_epochs=0.0", "data.on_error=skip")
    train(tiny(*change), tmp_path / "run")
    lines = log.read(tmp_path / "run" / "metrics.jsonl")
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == list(range(1, 14)), "no step was lost, and none done twice"
    assert 1 <= reached < 13
    assert lines[-1]["bad_images"] in (1, 2), "the next epoch may have begun ahead of time"
    shutil.copy(folder / "00.png", folder / "new.png")
    with pytest.raises(UserError, match="fingerprints.train: '100 .*' there, '101 .*' now"):
        train(tiny(*change), tmp_path / "run")
