"""Options of masked autoencoding in whole runs: stopped and resumed they end bit for bit the same,
and on one device they have the losses that they have on two.
"""

import functools
import shutil

import jax
import numpy as np
import pytest

from mae_jax.engine import mesh
from mae_jax.restore import load_run
from mae_jax.train import train
from tests.helpers import tiny, tiny_methods
from tests.helpers.runs import losses, whole_log
from tests.helpers.tiny_methods import CONV

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

OPTIONS = {
    "unit, class tokens, hog": dict(
        encoder=f"{tiny.ENCODER[:-1]}, class_tokens=3)",
        pool="cls_concat",
        mask="random(unit=(2, 1))",
        target="hog(cell=4)",
    ),
    "green, fuse, lowpass": dict(
        mask="noise(color=green)", fuse=(0, 1), target="lowpass(radius=0.2)"
    ),
    "cross, share, pca": dict(decoder="cross", predict_share=0.5, target="pca(keep=8)"),
    "cross, fuse, teacher": dict(decoder="cross", fuse=(0, 1), target=f"teacher({CONV!r})"),
    "vq": dict(
        target=f"vq({CONV!r}, codes=8, code_width=4, decoder_width=8)", loss="cross_entropy"
    ),
}
"""Arguments of `mae`, by what they have."""
LOADED = {"cross, fuse, teacher": "encoder", "vq": "tokenizer"}
"""The constant of the target that is loaded from the run of `vqvae`."""
METHODS = ("attention", "contrastive_tuning", "ema", "hpm", "vqvae")
"""Others of tests/helpers/tiny_methods.py, which test_other_methods.py resumes."""


def make_config(name, start=None):
    """Ten steps, with a checkpoint after five.

    Args:
        name: of OPTIONS or METHODS.
        start: workdir of a run of `vqvae`.
    """
    config = tiny_methods.get_config("ema" if name in OPTIONS else name)
    if name in OPTIONS:
        config.method.args = tiny.get_config().method.args
        config.method.args.update(OPTIONS[name])
    if name in LOADED:
        into = f"extra/target/{LOADED[name]}"
        config.init_from.teacher = dict(path=str(start), into=into)
    config.evals.update(run="", figures="")
    return config


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """The workdir of a run of `vqvae`."""
    workdir = tmp_path_factory.mktemp("vqvae")
    train(make_config("vqvae"), workdir)
    return workdir


@pytest.fixture(scope="module", params=[*OPTIONS, *METHODS])
def whole(request, tokenizer, tmp_path_factory):
    """Name, config and workdir of an uninterrupted run on two devices."""
    config = make_config(request.param, tokenizer)
    workdir = tmp_path_factory.mktemp("whole")
    train(config, workdir)
    return request.param, config, workdir


def final(workdir):
    """Path -> leaf of the state at the end."""
    _, state = load_run(workdir)
    assert int(state.step) == 10
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def test_a_stopped_run_ends_bit_for_bit_the_same(whole, tmp_path):
    _, config, workdir = whole
    shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "10")  # as a kill after step 5 leaves it
    train(config, tmp_path / "run")
    found, expected = final(tmp_path / "run"), final(workdir)
    assert whole_log(tmp_path / "run") == whole_log(workdir) and found.keys() == expected.keys()
    assert any(path.startswith("opt_state/") for path in found)
    for path, leaf in found.items():
        np.testing.assert_array_equal(leaf, expected[path], path)


def test_losses_do_not_depend_on_the_number_of_devices(whole, tmp_path, monkeypatch):
    _, config, workdir = whole
    one = functools.partial(mesh.make_mesh, devices=jax.devices()[:1])
    monkeypatch.setattr(mesh, "make_mesh", one)
    train(config, tmp_path)
    found, expected = losses(tmp_path), losses(workdir)
    assert len(jax.devices()) == 2 and len(found) == 10 and np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_loaded_networks_stay_as_they_are(whole, tokenizer):
    name, _, workdir = whole
    if name not in LOADED:
        pytest.skip("loads nothing")
    into = f"extra/target/{LOADED[name]}/"
    part = "params/encoder/" if LOADED[name] == "encoder" else "params/"
    source = final(tokenizer)
    source["params/codes"] = source["extra/codebook/codes"]
    constants = {path: leaf for path, leaf in final(workdir).items() if path.startswith(into)}
    assert len(constants) > 10
    for path, leaf in constants.items():
        np.testing.assert_array_equal(leaf, source[path.replace(into, part)], path)
