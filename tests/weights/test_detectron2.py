"""detectron2's detectors: every array becomes ours. Their layers, computed as PyTorch documents
them by loops in float64, give what ours give.
"""

import functools
import math
import pickle

import jax
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from mae_jax import weights
from mae_jax.models import vitdet
from mae_jax.models.feature_pyramid import FeaturePyramid
from mae_jax.models.mask_rcnn import MaskRCNN
from mae_jax.models.roi_heads import BoxHead, MaskHead
from mae_jax.models.rpn import RPNHead
from mae_jax.types import UserError
from tests.helpers.commands import mistake
from tests.weights.detectron2 import BASE, arrays_of, gelu, layer, normed, shapes_of, up

THOROUGH = pytest.mark.thorough
DEPTH, WIDTH, PATCH, CLASSES, PYRAMID, HIDDEN = 4, 8, 4, 3, 4, 6


@functools.cache
def imported(folder, stages=1):
    """The model and the arrays that it was read from."""
    arrays = arrays_of(stages=stages)
    save_file(arrays, folder / f"{stages}.safetensors")
    return weights.read(folder / f"{stages}.safetensors"), arrays


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("detectron2")


def part(params, name):
    """The parameters of a part, as a tree."""
    names = {path.split("/", 1)[1]: x for path, x in params.items() if path.split("/")[0] == name}
    return {"params": traverse_util.unflatten_dict(names, sep="/")}


def features(*shape, seed=1):
    """In their order, channels first."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def last(x):
    """Channels last, in a batch of one."""
    return np.moveaxis(x, 0, -1)[None]


def test_the_pyramid_is_theirs(folder):
    (model, _), arrays = imported(folder)
    x = features(WIDTH, 4, 6)
    levels = jax.jit(FeaturePyramid(PYRAMID).apply)(part(model.params, "pyramid"), [last(x)])
    finest = up(gelu(normed(up(x, arrays, "backbone.simfp_2.0"), arrays, "backbone.simfp_2.1")),
                arrays, "backbone.simfp_2.3")  # fmt: skip
    pooled = x.reshape(WIDTH, 2, 2, 3, 2).max(axis=(2, 4))
    scaled = [finest, up(x, arrays, "backbone.simfp_3.0"), x, pooled]
    for i, (x, first) in enumerate(zip(scaled, (4, 1, 0, 1), strict=True)):
        for j in (first, first + 1):
            x = layer(x, arrays, f"backbone.simfp_{i + 2}.{j}")
        np.testing.assert_allclose(levels[i], last(x), atol=2e-4)
    np.testing.assert_array_equal(levels[4], levels[3][:, ::2, ::2])


def test_proposals_are_theirs_in_the_order_of_anchors(folder):
    """Theirs are [anchors * 4, H, W], with (x, y, width, height) of an anchor."""
    (model, _), arrays = imported(folder)
    x, name = features(PYRAMID, 2, 3), "proposal_generator.rpn_head"
    logits, codes = jax.jit(RPNHead().apply)(part(model.params, "rpn"), [last(x)])
    for i in range(2):
        x = np.maximum(layer(x, arrays, f"{name}.conv.conv{i}"), 0)
    expected = layer(x, arrays, f"{name}.objectness_logits")  # [3, H, W]
    np.testing.assert_allclose(logits[0], expected.transpose(1, 2, 0).ravel(), atol=1e-4)
    deltas = layer(x, arrays, f"{name}.anchor_deltas").reshape(3, 4, 2, 3)
    dx, dy, dw, dh = deltas.transpose(1, 2, 3, 0).reshape(4, -1)
    np.testing.assert_allclose(codes[0], np.stack([dy, dx, dh, dw], axis=-1), atol=1e-4)


@pytest.mark.parametrize("stages", [1, pytest.param(3, marks=THOROUGH)])
def test_heads_are_theirs(folder, stages):
    (model, _), arrays = imported(folder, stages)
    assert model.args["cascade"] is (stages > 1)
    start, head = features(PYRAMID, 7, 7), stages - 1
    number = "" if stages == 1 else f".{head}"
    x = start
    for i in range(4):
        x = np.maximum(layer(x, arrays, f"roi_heads.box_head{number}.conv{i + 1}"), 0)
    dense = lambda x, name: arrays[f"{name}.weight"].astype(float) @ x + arrays[f"{name}.bias"]
    x = np.maximum(dense(x.ravel(), f"roi_heads.box_head{number}.fc1"), 0)
    network = BoxHead(CLASSES, PYRAMID, HIDDEN, shared=stages > 1)
    params = part(model.params, f"box_head_{head}")
    logits, codes = jax.jit(network.apply)(params, last(start)[None])
    scores = dense(x, f"roi_heads.box_predictor{number}.cls_score")  # background last
    np.testing.assert_allclose(logits[0, 0], scores, rtol=1e-4, atol=1e-4)
    deltas = dense(x, f"roi_heads.box_predictor{number}.bbox_pred").reshape(-1, 4)
    np.testing.assert_allclose(codes[0, 0], deltas[:, [1, 0, 3, 2]], rtol=1e-4, atol=1e-4)
    if stages > 1:
        return
    x = start
    for i in range(4):
        x = np.maximum(layer(x, arrays, f"roi_heads.mask_head.mask_fcn{i + 1}"), 0)
    x = np.maximum(up(x, arrays, "roi_heads.mask_head.deconv"), 0)
    masks = layer(x, arrays, "roi_heads.mask_head.predictor")
    run = jax.jit(MaskHead(CLASSES, PYRAMID).apply)
    params = part(model.params, "mask_head")
    rois = np.repeat(last(start)[None], CLASSES, axis=1)
    found = run(params, rois, np.arange(CLASSES)[None])
    np.testing.assert_allclose(found[0], masks, rtol=1e-4, atol=1e-4)


def test_the_encoder_is_theirs(folder):
    """Its network equals VitDetModel of transformers, whose names of arrays these become."""
    (model, table), arrays = imported(folder)
    encoder = traverse_util.unflatten_dict(
        {p[8:]: x for p, x in model.params.items() if p.startswith("encoder/")}, sep="/"
    )
    theirs = lambda name: arrays[f"backbone.net.{name}"]
    kernel = theirs("patch_embed.proj.weight")
    for row, column, channel in np.ndindex(PATCH, PATCH, 3):
        at = (row * PATCH + column) * 3 + channel
        np.testing.assert_array_equal(
            encoder["embed"]["kernel"][at], kernel[:, channel, row, column]
        )
    np.testing.assert_array_equal(encoder["positions"], theirs("pos_embed")[0, 1:])
    for i in range(DEPTH):
        block, name = encoder[f"block_{i}"], f"blocks.{i}"
        attention, mlp = block["attention"], block["mlp"]
        np.testing.assert_array_equal(attention["relative_rows"], theirs(f"{name}.attn.rel_pos_h"))
        np.testing.assert_array_equal(
            attention["relative_columns"], theirs(f"{name}.attn.rel_pos_w")
        )
        for ours, of in ((attention["qkv"], "attn.qkv"), (attention["proj"], "attn.proj"),
                         (mlp["fc1"], "mlp.fc1"), (mlp["fc2"], "mlp.fc2")):  # fmt: skip
            np.testing.assert_array_equal(ours["kernel"].T, theirs(f"{name}.{of}.weight"))
            np.testing.assert_array_equal(ours["bias"], theirs(f"{name}.{of}.bias"))
        for norm in ("norm1", "norm2"):
            np.testing.assert_array_equal(block[norm]["scale"], theirs(f"{name}.{norm}.weight"))
            np.testing.assert_array_equal(block[norm]["bias"], theirs(f"{name}.{norm}.bias"))
    assert sorted(row.theirs for row in table) == sorted(arrays)
    assert all(row.ours in model.params for row in table)


def test_what_the_shapes_contain(folder):
    (model, _), _ = imported(folder)
    assert model.method == "tasks.detect" and model.image == (16, 16, 3)
    assert {k: v for k, v in model.args.items() if k not in ("mean", "std")} == dict(
        encoder="vitdet(width=8, depth=4, heads=2, patch=4, window=2, global_blocks=2, "
        "position_grid=3)",
        classes=3,
        size=16,
        masks=True,
        cascade=False,
        width=4,
        hidden=6,
    )
    assert model.images.transform == "large_scale_jitter(16, scale=(1, 1))"


@pytest.mark.thorough
def test_the_published_detector_has_as_many_parameters():
    """ViTDet-B: all but the position of the class token, which is not used."""
    model = MaskRCNN(vitdet.make("B").clone(grid=(64, 64)), 80)
    batch = np.zeros((1, 64, 64, 3), np.float32), np.zeros((1, 2), np.float32)
    init = functools.partial(model.init, method="detect")
    ours = jax.eval_shape(init, jax.random.key(0), *batch)["params"]
    theirs = sum(map(math.prod, shapes_of(**BASE).values()))
    assert sum(x.size for x in jax.tree.leaves(ours)) == theirs - 768


def test_encoder_alone_and_other_files(folder, tmp_path, capsys):
    arrays = arrays_of(class_position=False)
    path = tmp_path / "model.pkl"  # the format of the model zoo
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "someone"}, protocol=2))
    model, _ = weights.read(path, weights.Options(encoder_only=True))
    assert model.method == "tasks.encode" and model.args["pool"] == "mean"
    np.testing.assert_array_equal(
        model.params["encoder/positions"], arrays["backbone.net.pos_embed"][0]
    )
    path.write_bytes(pickle.dumps({"model": {"a": jax.eval_shape}}))
    with pytest.raises(UserError, match="more than arrays .*could run code"):
        weights.read(path)
    path.write_bytes(pickle.dumps({"model": arrays})[:-300])
    with pytest.raises(UserError, match="damaged, or no pickle of arrays"):
        weights.read(path)
    line = mistake(
        capsys, "weights", "import", folder / "1.safetensors", "--out", tmp_path / "out",
        "--image-size", "32,32",
    )  # fmt: skip
    assert "--image-size is not for detectors" in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {f"backbone.net.blocks.{i}.attn.rel_pos_h": (7 - 4 * i, 4) for i in (0, 1)},
            "global attention in the blocks [0, 3], and ours is in [1, 3]",
        ),
        ({"roi_heads.box_head.fc1.weight": (6, 50)}, "50 inputs, not maps of 7 x 7"),
        ({"roi_heads.mask_head.predictor.weight": (3, 4, 3, 3)}, "1 x 1 is expected"),
        ({"proposal_generator.rpn_head.anchor_deltas.bias": (10,)}, "10 numbers are no codes"),
        ({"backbone.net.pos_embed": (1, 12, 8)}, "12 positions, not those of square images"),
        pytest.param(
            {"roi_heads.mask_head.deconv.weight": (4, 4, 4, 4)},
            "mask_head/up/fc/kernel has shape",
            marks=THOROUGH,
        ),
        pytest.param(
            {"backbone.net.blocks.1.attn.rel_pos_w": None}, "lacks parameters", marks=THOROUGH
        ),
        ({"backbone.net.blocks.1.residual.conv1.weight": (4, 8, 1, 1)}, "has unknown arrays"),
    ],
)
def test_other_detectors_are_refused_in_one_line(changes, message, tmp_path):
    arrays = arrays_of()
    for name, shape in changes.items():
        if shape is None:
            del arrays[name]
        else:
            arrays[name] = np.ones(shape, np.float32)
    save_file(arrays, tmp_path / "a.safetensors")
    with pytest.raises(UserError) as error:
        weights.read(tmp_path / "a.safetensors")
    assert message in str(error.value) and "\n" not in str(error.value)
