"""A run that is told to stop outside its steps: in an evaluation, a wait for data, and the end."""

import os
import signal
import time

import numpy as np
import pytest

import mae_jax.train
from mae_jax import evaluate
from mae_jax.config import load_config
from mae_jax.data import Data
from mae_jax.engine import log
from mae_jax.errors import Preempted
from mae_jax.run import Run, build
from mae_jax.workdir import read_results

CONFIG = ("schedule.epochs=1.0", "evals.run=knn(k=3)", "evals.every=2", "checkpoint.every=100")


def hang(*_):
    """Tells this process to stop, and would go on for long."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
    raise AssertionError("it goes on")


@pytest.mark.slow
def test_nothing_is_waited_for_and_nothing_is_lost(root, tmp_path, monkeypatch):
    run = build(load_config(str(root / "tests" / "helpers" / "tiny.py"), CONFIG))
    compiled = run.compile()
    monkeypatch.setattr(mae_jax.train, "build", lambda config, recorded: run)
    monkeypatch.setattr(Run, "compile", lambda self: compiled)
    evaluators, batches = evaluate.run_evaluators, Data.train

    def at_step(step):
        """An evaluation that hangs after so many steps, and no other does."""

        def run(run_, predict, which):
            lines = log.read(tmp_path / "metrics.jsonl")
            done = lines[-1]["step"] if lines else 0
            return hang() if done == step else evaluators(run_, predict, which)

        return run

    def interrupted(where):
        with pytest.raises(Preempted, match=f"^stopped {where}$"):
            mae_jax.train.train(run.config, tmp_path)
        monkeypatch.setattr(evaluate, "run_evaluators", evaluators)
        monkeypatch.setattr(Data, "train", batches)
        return [int(path.name) for path in (tmp_path / "checkpoints").glob("[0-9]*")]

    monkeypatch.setattr(evaluate, "run_evaluators", at_step(0))
    assert interrupted("before a step") == []
    monkeypatch.setattr(evaluate, "run_evaluators", at_step(2))
    assert interrupted("after step 2 of 4, which is saved") == [2]

    def third_hangs(self, start_step):
        yield next(batches(self, start_step))
        hang()

    monkeypatch.setattr(Data, "train", third_hangs)
    saved = interrupted("before a step|stopped after step 3 of 4, which is saved")
    assert saved in ([2], [2, 3]), "the batches are read ahead"
    monkeypatch.setattr(evaluate, "run_evaluators", at_step(4))
    assert sorted(interrupted("while evaluating, with the training complete"))[-1] == 4
    mae_jax.train.train(run.config, tmp_path)
    assert read_results(tmp_path / "results.json")["final"]["mae"].keys() == {"knn"}
    lines = log.read(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "eval/knn" in line] == [0, 2, 4]
    assert np.all(np.diff([line["time"] for line in lines]) >= 0)
