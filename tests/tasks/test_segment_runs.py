"""Runs of segmentation: killed and resumed they are the same, and eight scenes can be learned."""

import functools
import shutil

import jax
import numpy as np
import pytest

from mae_jax.restore import load_run
from tests.helpers.commands import run

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def in_the_project(root, monkeypatch):
    monkeypatch.chdir(root)


def trained(workdir, arg):
    """The run and its state."""
    command = ("train", "--config", f"tests/helpers/tiny_segment.py:{arg}", "--workdir", workdir)
    assert run(*command) == 0
    return load_run(workdir)


def test_a_killed_run_goes_on_with_its_statistics(tmp_path):
    _, state = trained(tmp_path, "resume")
    whole = jax.tree.map(np.array, (state.params, state.extra))
    assert float(np.std(whole[1]["batch_stats"]["head"]["fuse"]["norm"]["mean"])) > 0
    shutil.rmtree(tmp_path / "checkpoints" / "10")  # what a kill after step 5 leaves behind
    (tmp_path / "results.json").unlink(missing_ok=True)
    _, state = trained(tmp_path, "resume")
    jax.tree.map(np.testing.assert_array_equal, (state.params, state.extra), whole)


def test_eight_scenes_are_learned_by_heart(tmp_path):
    """In three minutes of two cores."""
    made, state = trained(tmp_path, "overfit")
    rows = next(iter(made.data.eval("train")))
    method = made.method
    predict = jax.jit(functools.partial(method.predict, outputs=("segmentation",)))
    logits = predict(state.params, state.extra, {"image": rows["image"]})["segmentation"]
    predicted, labels = np.asarray(logits).argmax(-1)[rows["valid"]], rows["segmentation"]
    labels = labels[rows["valid"]]
    ious = []
    for k in np.unique([predicted, labels]):
        ours, theirs = predicted == k, labels == k
        ious.append((ours & theirs).sum() / (ours | theirs).sum())
    assert np.mean(ious) > 0.95
