"""Weights whose files leave something unsaid, or that are of networks that compute the same as ours
under another form: what is taken is said, and the features are those of a network in NumPy.
"""

import json

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from mae_jax import weights
from mae_jax.methods import make_method
from mae_jax.ops.posemb import with_prefix
from mae_jax.types import UserError
from tests.helpers import plain_vit
from tests.weights.test_refusals import refused

PIXELS = dict(mean=(0.5,), std=(0.5,))
IMAGES = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), np.uint8)


def file_of(tmp_path, arrays, name="a.safetensors"):
    """A file with these arrays."""
    save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, tmp_path / name)
    return tmp_path / name


def read(path, **options):
    """The model of a file."""
    return weights.read(path, weights.Options(**PIXELS | options))[0]


def check_features(model, arrays, heads):
    """The class token of our network is that of the plain one."""
    method = make_method(name=model.method, args=model.args, total_steps=1)
    params = traverse_util.unflatten_dict(model.params, sep="/")
    with jax.default_matmul_precision("highest"):
        mine = method.predict(params, {}, {"image": IMAGES}, outputs=["features"])["features"]
    theirs = plain_vit.tokens(arrays, IMAGES / 255 * 2 - 1, heads)[:, 0]
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-5 * np.abs(theirs).max())


def moco_positions(grid, width):
    """As the code of MoCo v3 makes them: the `meshgrid` of PyTorch is indexed 'ij'."""
    w, h = np.meshgrid(np.arange(grid[1]), np.arange(grid[0]), indexing="ij")
    omega = 1 / 10000 ** (np.arange(width // 4) / (width // 4))
    w, h = (np.outer(x.ravel(), omega) for x in (w, h))
    table = np.concatenate([np.sin(w), np.cos(w), np.sin(h), np.cos(h)], axis=1)
    return np.pad(table, ((1, 0), (0, 0)))[None].astype(np.float32)


@pytest.fixture(scope="module")
def small():
    """The arrays of a ViT-S with one block."""
    return plain_vit.random_arrays(width=384, depth=1, hidden=384)


@pytest.mark.parametrize("kind", ["names", "key", "positions"])
def test_the_heads_of_moco_v3(kind, small, tmp_path, caplog):
    arrays, key = dict(small), None
    if kind == "positions":
        arrays["pos_embed"] = moco_positions((4, 4), 384)
        stored = arrays
    else:
        stored = {f"module.base_encoder.{n}": a for n, a in arrays.items()}
    if kind == "key":
        stored |= {f"module.momentum_encoder.{n}": a + 1 for n, a in arrays.items()}
        key = "module.base_encoder"
    model = read(file_of(tmp_path, stored), key=key)
    assert "heads=12" in model.args["encoder"]
    assert "assuming 12, as MoCo v3" in caplog.text and "--heads NUMBER" in caplog.text
    if kind == "key":
        check_features(model, arrays, 12)


def test_the_heads_that_a_width_leaves_open(small, tmp_path, caplog):
    path = file_of(tmp_path, small)
    assert "heads=6" in read(path).args["encoder"]
    lines = [line for line in caplog.messages if "heads" in line]
    assert len(lines) == 1 and lines[0].endswith(
        "does not contain the number of heads: assuming 6, as DeiT, DINO, iBOT, MSN and timm at "
        "width 384 (MoCo v3 has 12): otherwise --heads NUMBER"
    )
    caplog.clear()
    model = read(path, heads=12)
    assert "heads=12" in model.args["encoder"] and "heads" not in caplog.text
    model = read(path, likely_heads=12, encoder_only=True)  # as init_from asks
    assert "heads=12" in model.args["encoder"]
    assert "assuming 12, as config.method.args.encoder has" in caplog.text


@pytest.mark.parametrize(
    ("config", "heads"),
    [
        (dict(architecture="vit_small_patch16_224"), 6),
        (dict(architecture="vit_small_patch16_224", model_args=dict(num_heads=12)), 12),
        (dict(architecture="own_vit"), None),
    ],
)
def test_the_heads_that_a_config_of_timm_says(config, heads, small, tmp_path, caplog):
    file_of(tmp_path, small, "model.safetensors")
    more = dict(global_pool="token", pretrained_cfg=dict(mean=[0.5] * 3, std=[0.5] * 3))
    (tmp_path / "config.json").write_text(json.dumps(config | more))
    model = weights.read(tmp_path)[0]
    assert f"heads={heads or 6}" in model.args["encoder"]
    assert ("the number of heads" in caplog.text) == (heads is None)


DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32]


@pytest.mark.parametrize("dtype", DTYPES)
def test_positions_are_fixed_only_within_the_rounding_of_their_dtype(dtype, tmp_path):
    arrays = plain_vit.random_arrays(depth=1)
    fixed = with_prefix((4, 4), 48)[None].astype(dtype)
    learned = fixed.astype(np.float32)
    moved = np.float32(0.004 if dtype != ml_dtypes.bfloat16 else 0.02)  # all were taken as fixed
    learned = (learned + moved * np.sign(learned + 0.5)).astype(dtype)
    if dtype == np.float32:  # what counts is the dtype of the table itself
        arrays = {n: a.astype(np.float16) for n, a in arrays.items()}
    model = read(file_of(tmp_path, arrays | {"pos_embed": fixed}), heads=3)
    assert "encoder/positions" not in model.params
    model = read(file_of(tmp_path, arrays | {"pos_embed": learned}), heads=3)
    found = model.params["encoder/positions"]
    np.testing.assert_array_equal(found, learned[0].astype(np.float32))
    assert "learned_positions=True" in model.args["encoder"]


@pytest.mark.parametrize("names", [("gamma_1", "gamma_2"), ("ls1.gamma", "ls2.gamma")])
def test_deit_iii(names, tmp_path, caplog):
    """No position of the class token, and LayerScale."""
    arrays = plain_vit.random_arrays()
    arrays["pos_embed"] = arrays["pos_embed"][:, 1:]
    for i in range(2):
        for number, name in enumerate(names):
            gamma = np.random.default_rng(number).uniform(-1, 1, 48).astype(np.float32)
            arrays[f"blocks.{i}.{name}"] = gamma
    model, table = weights.read(file_of(tmp_path, arrays), weights.Options(heads=3, **PIXELS))
    assert "has 16 positions: assuming 16 patches and no position of the class" in caplog.text
    np.testing.assert_array_equal(model.params["encoder/positions"][0], 0)
    became = {row.theirs: row.ours for row in table}
    assert became[f"blocks.1.{names[0]}"] == "(folded into blocks.1.attn.proj)"
    check_features(model, arrays, 3)
    oblong = arrays | {"pos_embed": arrays["pos_embed"][:, :7]}
    with pytest.raises(UserError, match="the grid of 6 patches is unknown"):
        read(file_of(tmp_path, oblong), heads=3)
    model = read(file_of(tmp_path, oblong), heads=3, image_size=(4, 28))
    assert model.params["encoder/positions"].shape == (8, 48)
    factors = {f"blocks.0.{names[0]}": np.ones(7, np.float32)}
    with pytest.raises(UserError, match="does not fit blocks.0.attn.proj.weight"):
        read(file_of(tmp_path, arrays | factors), heads=3)


def test_queries_keys_and_values_without_a_bias(tmp_path):
    arrays = plain_vit.random_arrays()
    whole = dict(arrays)
    for i in range(2):
        del arrays[f"blocks.{i}.attn.qkv.bias"]
    model = read(file_of(tmp_path, arrays), heads=3)
    check_features(model, arrays, 3)
    del whole["blocks.1.attn.qkv.bias"]
    with pytest.raises(UserError, match="lacks .*encoder/block_1/attention/qkv/bias"):
        read(file_of(tmp_path, whole), heads=3)


@pytest.mark.parametrize("token", ["mask_token", "masked_embed"])
def test_a_mask_token_without_a_decoder(token, tmp_path):
    """SimMIM, BEiT, iBOT and DINOv2 have one."""
    arrays = plain_vit.random_arrays()
    path = file_of(tmp_path, arrays | {token: np.ones((1, 48), np.float32)})
    model, table = weights.read(path, weights.Options(heads=3, **PIXELS))
    assert model.method == "tasks.encode"
    assert ("(not used: there is no decoder)", token) in [row[:2] for row in table]
    check_features(model, arrays, 3)


OTHERS = {
    "reg_token": ((1, 4, 48), "registers"),
    "dist_token": ((1, 1, 48), "a distillation token"),
    "norm_pre.weight": ((48,), "a norm before the blocks"),
    "blocks.0.attn.relative_position_bias_table": ((9, 3), "relative positions"),
    "blocks.0.mlp.w12.weight": ((64, 48), "SwiGLU"),
    "blocks.0.attn.q_norm.weight": ((16,), "a norm of queries and keys"),
    "blocks.0.attn.q_bias": ((48,), "biases of BEiT"),
    "blocks.0.attn.qkv.weight_scale": ((1,), "quantized weights"),
    "head.0.running_mean": ((48,), "BatchNorm"),
    "head_dist.weight": ((5, 48), "a distillation token"),
    "attn_pool.latent": ((1, 1, 48), "attention pooling"),
    "blocks.0.ls3.gamma": ((48,), "LayerScale"),
    "text.token": ((48,), None),
}


def test_networks_with_more_in_them(tmp_path, capsys):
    arrays = plain_vit.random_arrays(depth=1)
    for name, (shape, what) in OTHERS.items():
        path = file_of(tmp_path, arrays | {name: np.ones(shape, np.float32)})
        line = refused(capsys, tmp_path, path, "--heads", 3)
        said = f"{name} ({what})" if what else name
        assert f"has unknown arrays: {said}; " in line


def test_networks_with_less_in_them(tmp_path, capsys):
    arrays = plain_vit.random_arrays(depth=1)
    for name, line in {
        "cls_token": "it has no class token, which these layouts need",
        "pos_embed": "no position embedding",
        "blocks.0.mlp.fc2.bias": "lacks parameters of vit(width=48, depth=1",
        "patch_embed.proj.bias": "encoder/embed/bias",
    }.items():
        path = file_of(tmp_path, {n: a for n, a in arrays.items() if n != name})
        said = refused(capsys, tmp_path, path, "--heads", 3)
        assert line in said


def test_arrays_of_no_use(tmp_path, capsys):
    arrays = plain_vit.random_arrays(depth=1)
    kernel = arrays["blocks.0.attn.qkv.weight"]
    for name, array, line in (
        ("blocks.0.attn.qkv.weight", kernel.astype(np.int8), "blocks.0.attn.qkv.weight is int8: "),
        ("blocks.0.attn.qkv.weight", kernel + 1j, "blocks.0.attn.qkv.weight in"),
        ("blocks.0.mlp.fc1.bias", np.zeros(0, np.float32), "fc1.bias is empty, [0]: "),
        ("pos_embed", np.zeros((2, 17, 48), np.float32), "one table [1, L, D] is expected"),
        ("pos_embed", np.zeros((1, 17, 40), np.float32), "encoder/positions has shape [17, 40]"),
        (
            "patch_embed.proj.weight",
            np.zeros((48, 3, 4, 2), np.float32),
            "has patches of 4 x 2: only square",
        ),
        ("cls_token", np.zeros((1, 48), np.float32), "encoder/cls_token has shape [1, 48]"),
    ):
        path = file_of(tmp_path, arrays | {name: array})
        assert line in refused(capsys, tmp_path, path, "--heads", 3)


def test_a_config_of_timm_for_another_network(tmp_path, capsys):
    file_of(tmp_path, plain_vit.random_arrays(depth=1), "model.safetensors")
    config = dict(architecture="vit_own", global_pool="token", pretrained_cfg={})
    for more, line in (
        (dict(global_pool="map"), "has global_pool='map' in its config.json: only token, avg"),
        (dict(model_args=dict(act_layer="quick_gelu")), "act_layer='quick_gelu' in model_args of"),
        (dict(model_args=[1]), "or the file itself is damaged ("),
        (dict(pretrained_cfg=None), "or the file itself is damaged ("),
        (dict(architecture=3), "or the file itself is damaged ("),
        (
            dict(hidden_size=48, image_size="16", num_attention_heads=3),
            "is damaged (('16', '16') are no sides of images",
        ),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | more))
        assert line in refused(capsys, tmp_path, tmp_path, "--heads", 3)


def test_an_encoder_alone_knows_its_pixels(tmp_path, caplog):
    """Whoever starts from it says them in the config; an imported one is used as it is."""
    path = file_of(tmp_path, plain_vit.random_arrays(depth=1))
    options = weights.Options(heads=3, encoder_only=True)
    assert weights.read(path, options._replace(for_start=True))[0].args["mean"] == ()
    assert not caplog.messages
    assert weights.read(path, options)[0].args["mean"] == (0.485, 0.456, 0.406)
    assert caplog.messages == [
        f"{path} does not contain mean and std of images: assuming ImageNet's"
    ]


def test_a_classifier_that_does_not_say_its_pooling(tmp_path, caplog):
    arrays = plain_vit.random_arrays(depth=1)
    head = {"head.weight": np.ones((5, 48), np.float32), "head.bias": np.ones(5, np.float32)}
    model = read(file_of(tmp_path, arrays | head), heads=3)
    assert model.method == "tasks.finetune" and model.args["pool"] == "cls"
    assert "does not contain the input of its head: assuming the class token" in caplog.text
