"""Whole small runs: exact resume after any end, two meshes, divergence, both input pipelines."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from mae_jax.config import load_config
from mae_jax.engine import log
from mae_jax.engine.meter import Diverged
from mae_jax.load import load
from mae_jax.run import build
from mae_jax.train import train
from mae_jax.types import UserError
from mae_jax.workdir import lock


def tiny(root, *overrides):
    return load_config(str(root / "tests" / "tiny.py"), overrides)


def losses(workdir):
    lines = log.read(workdir / "metrics.jsonl")
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def whole_log(workdir):
    """All that was logged, but for the times."""
    lines = log.read(workdir / "metrics.jsonl")
    return [{name: line[name] for name in line if name not in log.TIMINGS} for line in lines]


def assert_same_leaves(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def start(root, workdir, *arguments):
    """`mae-jax train` in a process of its own, with one device."""
    command = [sys.executable, "-m", "mae_jax", "train", "--config", "tests/tiny.py"]
    command += ["--config.evals.run=knn(k=3)", "--config.evals.every=15"]
    env = os.environ | {
        "XLA_FLAGS": "",
        "JAX_COMPILATION_CACHE_DIR": str(root / ".pytest_cache" / "jax"),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    return subprocess.Popen(
        [*command, "--workdir", str(workdir), *arguments],
        cwd=root,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
    )


def signal_at(process, workdir, step, number):
    """Sends a signal once the run has logged `step`; returns exit code and standard error."""
    deadline = time.monotonic() + 120
    while not any(done >= step for done, _ in losses(workdir)):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.002)
    process.send_signal(number)
    error = process.communicate()[1]
    return process.returncode, error


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    """An uninterrupted run in its own process: its workdir."""
    workdir = tmp_path_factory.mktemp("whole")
    process = start(root, workdir)
    assert process.wait() == 0, process.stderr.read()
    return workdir


def final(workdir):
    """Parameters and moments at the end of a run."""
    _, state = load(workdir)
    assert int(state.step) == 40
    return state


def test_killed_and_started_again_is_bitwise_the_same(root, whole, tmp_path):
    for step in (random.randint(3, 20), random.randint(12, 38)):
        code, _ = signal_at(start(root, tmp_path), tmp_path, step, signal.SIGKILL)
        if code == 0:  # it had ended before the signal came: nothing left to interrupt
            break
        assert code == -signal.SIGKILL
    process = start(root, tmp_path)
    assert process.wait() == 0, process.stderr.read()
    assert whole_log(tmp_path) == whole_log(whole)
    assert [step for step, _ in losses(tmp_path)] == list(range(1, 41))
    evaluated = [line["step"] for line in whole_log(whole) if "eval/knn" in line]
    assert evaluated == [0, 15, 30]
    assert_same_leaves(final(tmp_path), final(whole))


def test_told_to_stop_it_saves_and_says_so(root, whole, tmp_path):
    code, error = signal_at(start(root, tmp_path), tmp_path, 13, signal.SIGTERM)
    assert code == 75 and "start again to go on" in error
    assert "Traceback" not in error
    _, state = load(tmp_path)
    assert 13 <= int(state.step) < 40 and int(state.step) == losses(tmp_path)[-1][0]
    process = start(root, tmp_path)
    assert process.wait() == 0 and "going on from step" in process.stderr.read()
    assert whole_log(tmp_path) == whole_log(whole)
    assert_same_leaves(final(tmp_path), final(whole))


def test_a_run_learns_evaluates_and_draws(root, tmp_path):
    evals = "knn(k=3)|logistic(l2=0.1)"
    train(tiny(root, f"evals.run={evals}", "evals.every=20"), tmp_path)
    seen = losses_of = [line for line in log.read(tmp_path / "metrics.jsonl") if "loss" in line]
    assert np.mean([x["loss"] for x in losses_of[-8:]]) < np.mean([x["loss"] for x in seen[:8]])
    evaluated = [line for line in log.read(tmp_path / "metrics.jsonl") if "eval/knn" in line]
    assert [line["step"] for line in evaluated] == [0, 20, 40]
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert list(results) == ["raw pixels", "random encoder", "mae"]
    assert results["mae"]["knn"] == evaluated[-1]["eval/knn"]
    assert results["random encoder"]["logistic"] == evaluated[0]["eval/logistic"]
    for name in ("curves.png", "reconstructions.png"):
        assert (tmp_path / "figures" / name).read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("change", ["mesh.fsdp=2", "data.pipeline=tf"])
def test_meshes_and_pipelines_give_the_same_run(root, tmp_path, change):
    short = "schedule.epochs=2.0"
    train(tiny(root, short), tmp_path / "a")
    train(tiny(root, short, change), tmp_path / "b")
    a, b = losses(tmp_path / "a"), losses(tmp_path / "b")
    assert len(a) == 8
    tolerance = 1e-5 if "mesh" in change else 2e-3  # pixels may differ by one grey level
    np.testing.assert_allclose([x for _, x in a], [x for _, x in b], rtol=tolerance)


def test_divergence_stops_the_run_and_keeps_the_good_state(root, tmp_path):
    config = tiny(root, "schedule.base_lr=1e30", "max_skipped=5", "checkpoint.every=2")
    with pytest.raises(Diverged, match="not finite for 5 steps in a row"):
        train(config, tmp_path)
    skipped = [line["step"] for line in log.read(tmp_path / "metrics.jsonl") if line["skipped"]]
    _, state = load(tmp_path)
    assert 0 < int(state.step) < skipped[0]
    assert int(state.skips.total) == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


def test_a_workdir_belongs_to_one_config(root, tmp_path):
    train(tiny(root, "schedule.epochs=1.0"), tmp_path)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(UserError, match=r"method.args.mask_ratio: 0.75 there, 0.5 now"):
        train(tiny(root, "schedule.epochs=1.0", "method.args.mask_ratio=0.5"), tmp_path)
    assert (tmp_path / "config.json").read_text() == before
    train(tiny(root, "schedule.epochs=1.0", "log.every=2", "checkpoint.keep=3"), tmp_path)


def test_a_workdir_belongs_to_one_run_at_a_time(root, tmp_path):
    with lock(tmp_path), pytest.raises(UserError, match="another run is using"):
        train(tiny(root, "schedule.epochs=1.0"), tmp_path)


def test_a_run_does_not_go_on_with_other_images(root, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
    for number in range(4):
        Image.fromarray(pixels[number]).save(folder / f"{number}.png")
    config = tiny(root, f"data.train=folder({str(folder)!r})", "data.test=")
    train(config, tmp_path / "run")
    Image.fromarray(pixels[4]).save(folder / "4.png")
    with pytest.raises(UserError, match="identities.train: '4 .*' there, '5 .*' now"):
        train(config, tmp_path / "run")


def test_the_classes_of_both_splits_are_the_same(root, tmp_path):
    for split, name in (("train", "cat"), ("train", "dog"), ("test", "eel")):
        (tmp_path / split / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / split / name / "0.png")
    folders = [f"data.{s}=folder({str(tmp_path / s)!r})" for s in ("train", "test")]
    with pytest.raises(UserError, match="differ: eel only in the latter"):
        build(tiny(root, *folders))


def test_a_log_cut_short_is_mended(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n{"step": 3, "lo')
    assert [line["step"] for line in log.read(path)] == [1, 2]
    log.drop_after(path, 1)
    assert path.read_text() == '{"step": 1, "loss": 2.0}\n'


def test_a_bad_image_stops_a_run_that_skipping_lets_go_on(root, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(100):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{i:02}.png")
    (folder / "50.png").write_bytes(b"<html>")
    change = ("data.test=", f"data.train=folder({str(folder)!r})", "schedule.epochs=1.0")
    with pytest.raises(UserError, match="cannot read image 50, 50.png"):
        train(tiny(root, *change, "schedule.warmup_epochs=0.0"), tmp_path / "run")
    reached = losses(tmp_path / "run")[-1][0]
    change += ("schedule.warmup_epochs=0.0", "data.on_error=skip")
    train(tiny(root, *change), tmp_path / "run")
    lines = log.read(tmp_path / "run" / "metrics.jsonl")
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == list(range(1, 14)), "no step was lost, and none done twice"
    assert 1 <= reached < 13
    assert lines[-1]["bad_images"] in (1, 2), "the next epoch may have begun ahead of time"
