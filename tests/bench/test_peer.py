"""The model of the other library is the same as ours, and what cannot be compared is refused."""

import importlib.util

import jax
import pytest

from mae_jax.bench import peer
from mae_jax.bench.setup import make_setup
from mae_jax.types import UserError
from tests.helpers import tiny, tiny_methods


def square(**args):
    """`tiny` on images of 8 x 8 pixels."""
    config = tiny.get_config()
    config.method.args.update(args)
    return config


def test_the_peer_has_our_parameters_and_learns_on_our_images(monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    setup = make_setup(square(), [8])
    models, make_model = [], peer.make_model
    monkeypatch.setattr(peer, "make_model", lambda s: models.append(make_model(s)) or models[0])
    train = peer.make_trainer(setup, compiled=False)
    numbers = lambda: [p.detach().clone() for p in models[0].parameters() if p.requires_grad]
    before = numbers()
    ours = sum(leaf.size for leaf in jax.tree.leaves(setup.abstract_state.params))
    assert sum(p.numel() for p in before) == ours
    assert train(2) > 0
    moved = [bool((a != b).any()) for a, b in zip(before, numbers(), strict=True)]
    assert all(moved)


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs torch.*pip install torch transformers"):
        peer.make_peers(make_setup(square(), [8]), "hf")


def test_what_the_peer_cannot_do_is_refused():
    for args, name in [(dict(mask="grid"), "mask"), (dict(loss="l1"), "loss")]:
        with pytest.raises(UserError, match=f"support '{name}'"):
            peer.check_setup(make_setup(square(**args), [8]))
    with pytest.raises(UserError, match="'image size'"):
        peer.check_setup(make_setup(square()))
    with pytest.raises(UserError, match="masked autoencoders of a ViT"):
        peer.check_setup(make_setup(tiny_methods.get_config("vae"), [8]))
    peer.check_setup(make_setup(square(), [8]))


def test_a_missing_compiler_is_said(monkeypatch):
    monkeypatch.setattr(peer.shutil, "which", lambda name: None)
    assert "needs a C++ compiler" in peer._no_compiler()
    monkeypatch.setattr(peer.shutil, "which", lambda name: "/usr/bin/" + name)
    assert not peer._no_compiler()
