"""Ours -> theirs -> ours gives every bit back, and theirs has their names."""

import functools
import json

import jax
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from mae_jax import weights
from mae_jax.methods import make_method
from mae_jax.types import UserError
from mae_jax.weights.layout import grouped
from mae_jax.weights.saving import write_file
from tests.weights import models

MODELS = {
    "Ti": dict(encoder="Ti"),
    "B": dict(encoder="B", depth=2, decoder=(512, 1, 16)),
    "L": dict(encoder="L", depth=2, decoder=(512, 2, 16)),
    "wide, one channel": dict(encoder="Ti", image=(16, 48, 1), patch=8, mean=(0.4,)),
}
"""The full depth of B and L is in `parity.py`: what repeats here is one block."""
OUT = {"timm": "model.safetensors", "mae": "model.pth", "hf": "folder"}


def same(found, expected):
    """Whether two dictionaries of arrays are equal to the bit."""
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path].view(np.uint32), array.view(np.uint32), path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.thorough) if n == "L" else n for n in MODELS]
)
@pytest.mark.parametrize("layout", OUT)
def test_a_masked_autoencoder_comes_back(name, layout, tmp_path):
    if layout == "mae":
        pytest.importorskip("torch", reason="a .pth file needs PyTorch")
    model = models.mae(**MODELS[name])
    out = tmp_path / OUT[layout]
    weights.write(model, out, layout)
    found, table = weights.read(out)
    same_parts = lambda part: {k: v for k, v in model.params.items() if k.startswith(part)}
    same(found.params, same_parts("encoder" if layout == "timm" else ""))
    assert found.image == model.image
    if layout == "timm":
        assert found.method == "tasks.encode"
    else:
        assert found.method == "mae"
        known = model.args.keys() - {"encoder"} - ({"mean", "std"} if layout == "mae" else set())
        assert {k: found.args[k] for k in known} == {k: model.args[k] for k in known}
    assert len(grouped(table)) < 40


def test_official_weights_without_our_notes(tmp_path):
    """Of the usual widths, all but what the decoder predicts is read off the arrays."""
    model = models.mae("B", image=(224, 224, 3), depth=1, decoder=(512, 1, 16))
    weights.write(model, tmp_path / "ours.safetensors", "mae")
    save_file(load_file(tmp_path / "ours.safetensors"), tmp_path / "theirs.safetensors")
    with pytest.raises(UserError, match="the target of its decoder: pass --target"):
        weights.read(tmp_path / "theirs.safetensors")
    options = weights.Options(target="pixels")
    found, _ = weights.read(tmp_path / "theirs.safetensors", options)
    same(found.params, model.params)
    assert found.args["decoder_heads"] == 16 and found.args["target"] == "pixels(normalize=False)"
    assert found.args["encoder"] == "vit(width=768, depth=1, heads=12, patch=16)"
    assert found.args["mean"] == (0.485, 0.456, 0.406) and found.image == (224, 224, 3)


@pytest.mark.parametrize(("layout", "pool"), [*((k, "mean") for k in OUT), ("timm", "cls")])
def test_a_classifier_comes_back(layout, pool, tmp_path):
    if layout == "mae":
        pytest.importorskip("torch", reason="a .pth file needs PyTorch")
    model = models.tuned(pool, columns=3)
    out = tmp_path / OUT[layout]
    weights.write(model, out, layout)
    found, _ = weights.read(out)
    expected = dict(model.params)
    if layout == "hf":  # BEiT's keys have no bias
        for i in range(2):
            bias = expected[f"encoder/block_{i}/attention/qkv/bias"].copy()
            bias[32:64] = 0
            expected[f"encoder/block_{i}/attention/qkv/bias"] = bias
    same(found.params, expected)
    assert (found.method, found.args) == (model.method, model.args)


LEARNED = {
    "multilabel(class_weights=balanced)": "multilabel",
    "regression(error=absolute)": "regression",
}


def learned(objective):
    """A fine-tuned model of two values or classes, with constants."""
    model, rng = models.tuned("mean", classes=2, columns=3), np.random.default_rng(0)
    constants = {"weights": rng.random((2, 2))}
    still = {}
    if objective.startswith("regression"):
        still = dict(mixup=0.0, cutmix=0.0, smoothing=0.0)
        constants = {"mean": np.float32([300, -2]), "std": np.float32([50, 0.1])}
    extra = {f"objective/{name}": np.float32(array) for name, array in constants.items()}
    args = model.args | dict(objective=objective) | still
    return model._replace(args=args, extra=extra)


@pytest.mark.parametrize("objective", LEARNED)
@pytest.mark.parametrize("layout", OUT)
def test_a_head_of_another_objective_comes_back(layout, objective, tmp_path):
    """Of numbers, in their units."""
    if layout == "mae":
        pytest.importorskip("torch", reason="a .pth file needs PyTorch")
    model, kind = learned(objective), LEARNED[objective]
    weights.write(model, tmp_path / OUT[layout], layout)
    found, _ = weights.read(tmp_path / OUT[layout])
    assert found.args == model.args | dict(objective=kind) and found.method == "tasks.finetune"
    kernel, bias = (np.float64(model.params[f"head/{leaf}"]) for leaf in ("kernel", "bias"))
    if kind == "regression":
        mean, std = (np.float64(model.extra[f"objective/{name}"]) for name in ("mean", "std"))
        kernel, bias = kernel * std, bias * std + mean
        extra = {"objective/mean": np.zeros(2), "objective/std": np.ones(2)}
        jax.tree.map(np.testing.assert_array_equal, found.extra, extra)
    else:
        assert not found.extra
    np.testing.assert_allclose(found.params["head/kernel"], kernel, rtol=1e-7)
    np.testing.assert_allclose(found.params["head/bias"], bias, rtol=1e-7)
    if layout == "hf":
        config = json.loads((tmp_path / "folder" / "config.json").read_text())
        problem = {"multilabel": "multi_label_classification"}.get(kind, kind)
        assert config["problem_type"] == problem
        file = tmp_path / "folder" / "model.safetensors"
        save_file(load_file(file), file)  # without our notes
        assert weights.read(tmp_path / "folder")[0].args["objective"] == kind


def test_a_probe_of_numbers_predicts_the_same(tmp_path):
    model = models.probe(2)
    extra = {"objective/mean": np.linspace(-5, 5, 7), "objective/std": np.linspace(1, 9, 7)}
    extra = model.extra | {name: np.float32(array) for name, array in extra.items()}
    model = model._replace(args=model.args | dict(objective="regression"), extra=extra)
    weights.write(model, tmp_path / "a.safetensors", "timm", head=1)
    found, _ = weights.read(tmp_path / "a.safetensors")
    images = np.random.default_rng(0).integers(0, 256, (5, 24, 16, 3), np.uint8)
    expected = outputs(model, images)["head_prediction"][:, 1]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(outputs(found, images)["prediction"], expected, atol=1e-5 * scale)
    assert np.abs(np.mean(expected, axis=0) - extra["objective/mean"]).max() < scale


def test_heads_that_no_layout_holds_are_refused(tmp_path):
    model = models.tuned("cls", classes=2)
    model = model._replace(args=model.args | dict(objective="ordered", classes=3))
    with pytest.raises(UserError, match="cannot hold the head of objective 'ordered': .*stablehlo"):
        weights.write(model, tmp_path / "a.safetensors", "timm")
    weights.write(model, tmp_path / "a.safetensors", "timm", encoder_only=True)
    model = models.tuned("cls")
    notes = dict(heads=4, image=[24, 16], mean=[0.5], std=[0.25], objective="other.learned")
    weights.write(model, tmp_path / "b.safetensors", "timm")
    write_file(tmp_path / "c.safetensors", load_file(tmp_path / "b.safetensors"), notes)
    with pytest.raises(UserError, match="objective 'other.learned', and only classes, multilabel"):
        weights.read(tmp_path / "c.safetensors")


def outputs(model, images):
    """What a model says of images."""
    method = make_method(name=model.method, args=model.args, total_steps=1)
    params = traverse_util.unflatten_dict(model.params, sep="/")
    predict = functools.partial(method.predict, outputs=method.offers())
    extra = traverse_util.unflatten_dict(model.extra, sep="/")
    return jax.jit(predict)(params, extra, {"image": images})


@pytest.mark.parametrize("heads", [1, 3])
def test_a_probe_becomes_a_classifier_that_says_the_same(heads, tmp_path):
    model = models.probe(heads)
    if heads > 1:
        with pytest.raises(UserError, match="3 heads .* pass --head"):
            weights.write(model, tmp_path / "a.safetensors", "timm")
        with pytest.raises(UserError, match="--head 3: this probe has heads 0 to 2"):
            weights.write(model, tmp_path / "a.safetensors", "timm", head=3)
    weights.write(model, tmp_path / "a.safetensors", "timm", head=heads - 1)
    found, _ = weights.read(tmp_path / "a.safetensors")
    images = np.random.default_rng(0).integers(0, 256, (5, 24, 16, 3), np.uint8)
    theirs, ours = outputs(found, images), outputs(model, images)
    expected = ours["head_logits"][:, heads - 1]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(theirs["logits"], expected, rtol=0, atol=1e-5 * scale)
    np.testing.assert_allclose(theirs["features"], ours["features"], rtol=0, atol=1e-5)


def test_a_probe_of_the_mean_comes_back_as_one(tmp_path):
    model = models.probe(1)
    model.args["pool"] = "mean"
    weights.write(model, tmp_path / "a.safetensors", "timm")
    found, table = weights.read(tmp_path / "a.safetensors")
    assert found.method == "tasks.linear_probe" and found.args["pool"] == "mean"
    assert {"head_0/kernel", "head_0/bias"} <= {row.ours for row in table}
    images = np.random.default_rng(0).integers(0, 256, (5, 24, 16, 3), np.uint8)
    expected = outputs(model, images)["logits"]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(outputs(found, images)["logits"], expected, atol=1e-5 * scale)
    with pytest.raises(UserError, match="no classifier with pool=mean after the final norm"):
        weights.write(model, tmp_path / "folder", "hf")


@pytest.mark.parametrize("of", ["mae", "cls", "mean"])
def test_the_table_says_nothing_of_what_is_left_out(of, tmp_path):
    model = models.mae(depth=1) if of == "mae" else models.tuned(of)
    weights.write(model, tmp_path / "a.safetensors", "mae")
    for only in (False, True):
        options = weights.Options(encoder_only=only)
        found, table = weights.read(tmp_path / "a.safetensors", options)
        taken = {row.ours for row in table} - {"(computed here: sine-cosine)"}
        assert taken == found.params.keys()
        assert only == all(path.startswith("encoder/") for path in taken)


@pytest.mark.parametrize("how", ["bicubic", "antialias", "recompute"])
def test_positions_come_to_another_size_only_on_request(how, tmp_path):
    model = models.mae()
    weights.write(model, tmp_path / "a.safetensors", "mae")
    with pytest.raises(UserError, match=r"position table is for 2 x 2 patches, not 3 x 5"):
        weights.read(tmp_path / "a.safetensors", weights.Options(image_size=(48, 80)))
    options = weights.Options(image_size=(48, 80), positions=how, encoder_only=True)
    found, _ = weights.read(tmp_path / "a.safetensors", options)
    assert found.image == (48, 80, 3)
    if how == "recompute":
        assert "encoder/positions" not in found.params
    else:
        assert found.params["encoder/positions"].shape == (16, 192)
        assert "learned_positions=True" in found.args["encoder"]
