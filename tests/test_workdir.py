"""Whose a workdir is, and what a run that goes on may set otherwise."""

import pytest
from ml_collections import ConfigDict

from mae_jax.types import UserError
from mae_jax.workdir import check_class_names, claim, read_classes


def config_of(encoder="vit(B, patch=16)", **args):
    """A config with nothing but a method."""
    return ConfigDict(dict(method=dict(name="mae", args=dict(encoder=encoder, **args))))


@pytest.fixture
def workdir(tmp_path):
    """One that `config_of()` has begun, up to a checkpoint."""
    claim(tmp_path, config_of(decoder_remat="none", decoder_width=512), {})
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("args", "lines"),
    [
        (
            dict(encoder="vit(B, patch=16, remat=dots, attention='cudnn', gather=onehot)"),
            ["config.method.args.encoder is now \"vit(B, patch=16, remat=dots, attention='cudnn'"],
        ),
        (dict(encoder="vit('B', patch=16)"), ["config.method.args.encoder is now"]),
        (
            dict(decoder_remat="full"),
            ["config.method.args.decoder_remat is now 'full', was 'none'"],
        ),
        (dict(decoder_gather="onehot"), ["config.method.args.decoder_gather is now 'onehot'"]),
        (dict(decoder_attention="cudnn"), ["config.method.args.decoder_attention is now 'cudnn'"]),
        ({}, []),
    ],
)
def test_how_a_network_is_computed_may_change(workdir, args, lines):
    config = config_of(**dict(decoder_remat="none", decoder_width=512) | args)
    said = claim(workdir, config, {})
    assert len(said) == len(lines) and all(map(str.startswith, said, lines)), said
    assert claim(workdir, config, {}) == [], "that is how it goes on"


def test_options_of_the_compiler_may_change(workdir):
    """An older config has none."""
    config = config_of(decoder_remat="none", decoder_width=512)
    config.compiler = dict(tpu="xla_a=1")
    lines = ["config.compiler.tpu is now 'xla_a=1', was None"]
    assert claim(workdir, config, {}) == lines


@pytest.mark.parametrize(
    "args",
    [
        dict(encoder="vit(B, patch=14, remat=dots)"),
        dict(encoder="vit(L, patch=16, remat=dots)"),
        dict(encoder="convnext(B, patch=16)"),
        dict(encoder="vit(B, patch=16, mlp_ratio=2.0)"),
        dict(encoder=""),
        dict(decoder_width=256),
    ],
)
def test_another_network_may_not(workdir, args):
    config = config_of(**dict(decoder_remat="none", decoder_width=512) | args)
    with pytest.raises(UserError, match=f"method.args.{next(iter(args))}: .* there, .* now"):
        claim(workdir, config, {})


def test_the_classes_of_a_run_and_their_order_stay(tmp_path):
    """Also names of several classes and of numbers; fields that are not learned pass."""
    config = config_of()
    learned = {"label": ["a", "b"], "labels": ["x", "y"], "value": ["size"]}
    claim(tmp_path, config, {}, learned)
    claim(tmp_path, config, {}, learned | {"label": ["b", "a"]})
    claim(tmp_path, config, {}, learned)
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    claim(tmp_path, config, {}, learned)
    for changed, message in (
        ({"label": ["b", "a"]}, "learned 'label' with the class 'a', where .*train has 'b': use"),
        ({"label": ["a", "b", "c"]}, "'label' with the class None, where .*train has 'c'"),
        ({"labels": ["x"]}, "'labels' with the class 'y', where config.data.train has None"),
        ({"value": ["weight"]}, "'value' with the class 'size', where .* has 'weight'"),
    ):
        with pytest.raises(UserError, match=message):
            claim(tmp_path, config, {}, learned | changed)
    check_class_names(tmp_path, {"segmentation": ["sky"]})
    assert read_classes(tmp_path) == learned
