"""What stands beside weights: older forms of it, forms that others' classes write, and where it
contradicts the arrays.
"""

import json

import ml_dtypes
import numpy as np
import pytest

from mae_jax import weights
from mae_jax.config import load_config
from mae_jax.ops.posemb import with_prefix
from mae_jax.run import build
from mae_jax.types import UserError
from tests.helpers import plain_vit
from tests.helpers.commands import mistake
from tests.weights.test_refusals import refused
from tests.weights.test_unusual import PIXELS, check_features, file_of, read

HF = dict(model_type="vit", hidden_size=48, num_attention_heads=3, image_size=16)


@pytest.fixture(scope="module")
def arrays():
    """Those of an encoder with one block."""
    return plain_vit.random_arrays(depth=1)


def beside(tmp_path, arrays, config, **more):
    """A folder with these arrays, a config.json and other JSON files."""
    file_of(tmp_path, arrays, "model.safetensors")
    for name, content in {"config": config, **more}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_fixed_positions_that_were_rounded_before_they_were_stored(dtype, arrays, tmp_path):
    """As files of half precision that someone has converted to float32."""
    fixed = with_prefix((4, 4), 48)[None].astype(dtype).astype(np.float32)
    model = read(file_of(tmp_path, arrays | {"pos_embed": fixed}), heads=3)
    assert "encoder/positions" not in model.params
    fixed[0, 5, 7] += 1e-3
    model = read(file_of(tmp_path, arrays | {"pos_embed": fixed}), heads=3)
    np.testing.assert_array_equal(model.params["encoder/positions"], fixed[0])


def test_timm_without_a_section_for_its_images(tmp_path, caplog):
    """timm before 0.8 wrote the keys of pretrained_cfg beside the others."""
    arrays = plain_vit.random_arrays(width=384, depth=1, hidden=384)
    pixels = dict(mean=[0.5] * 3, std=[0.4] * 3, input_size=[3, 16, 16], crop_pct=0.9)
    config = dict(architecture="vit_small_patch16_224", interpolation="bilinear", **pixels)
    model = weights.read(beside(tmp_path, arrays, config))[0]
    assert "heads=6" in model.args["encoder"] and not caplog.messages
    assert (model.args["mean"], model.args["std"]) == ((0.5,) * 3, (0.4,) * 3)
    assert model.images.transform.startswith("resize(17, kernel=bilinear, rounding=down)")


def test_the_wrapper_of_transformers_around_timm(arrays, tmp_path):
    pretrained = dict(mean=[0.5] * 3, std=[0.4] * 3, input_size=[3, 16, 16], crop_pct=0.9)
    config = dict(model_type="timm_wrapper", architecture="own", pretrained_cfg=pretrained)
    processor = dict(image_processor_type="TimmWrapperImageProcessor")
    wrapped = {f"timm_model.{name}": array for name, array in arrays.items()}
    folder = beside(tmp_path, wrapped, config, preprocessor_config=processor)
    model = weights.read(folder, weights.Options(heads=3))[0]
    assert model.args["std"] == (0.4,) * 3 and not model.images.remark
    assert model.images.transform.startswith("resize(17, kernel=bicubic, rounding=down)")
    check_features(model._replace(args=model.args | PIXELS), arrays, 3)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (dict(hidden_size=64), "hidden_size=64 in config.json, 48 in the weights"),
        (dict(num_hidden_layers=2), "num_hidden_layers=2 in config.json, 1 in the weights"),
        (dict(patch_size=8), "patch_size=8 in config.json, 4 in the weights"),
        (dict(patch_size=[4, 8]), "patch_size=[4, 8] in config.json, 4 in the weights"),
    ],
)
def test_a_config_of_another_encoder(said, line, arrays, tmp_path, capsys):
    """A block at the end that is missing leaves no other trace."""
    (tmp_path / "folder").mkdir()
    folder = beside(tmp_path / "folder", arrays, HF | said)
    found = refused(capsys, tmp_path, folder, "--mean", 0.5, "--std", 0.5)
    assert "config.json describes another model, or weights are missing: " in found
    assert found.endswith(line)


def test_a_config_of_other_images(arrays, tmp_path, caplog):
    sizes = dict(num_hidden_layers=1, patch_size=[4, 4])
    assert read(beside(tmp_path, arrays, HF | sizes)).image == (16, 16, 3)
    assert not caplog.messages
    assert read(beside(tmp_path, arrays, HF | dict(image_size=32))).image == (16, 16, 3)
    assert "has an image size of 32 x 32, and positions for 4 x 4 patches" in caplog.text


def test_a_config_that_does_not_say_the_heads(arrays, tmp_path):
    folder = beside(tmp_path, arrays, {k: v for k, v in HF.items() if "heads" not in k})
    assert "heads=3" in read(folder, heads=3).args["encoder"]
    with pytest.raises(UserError, match="no standard ViT has width 48: pass --heads"):
        read(folder)
    wide = plain_vit.random_arrays(width=512, depth=1, hidden=8)
    (tmp_path / "wide").mkdir()
    with pytest.raises(UserError, match=r"has width 512 \(timm's vit_medium has 8\): pass"):
        read(file_of(tmp_path / "wide", wide))


def test_decoders_that_are_not_whole(arrays, tmp_path):
    token = {"mask_token": np.zeros((1, 1, 32), np.float32)}
    block = {f"decoder_{n}": a for n, a in arrays.items() if n.startswith("blocks.")}
    for more, what in (
        (token | {"decoder_pos_embed": arrays["pos_embed"]}, "blocks"),
        (token | {"decoder_embed.weight": np.ones((32, 48), np.float32)}, "blocks"),
        (block, "decoder/mask_token"),
    ):
        path = file_of(tmp_path, arrays | more)
        with pytest.raises(UserError, match=f"has no {what}; leave it out with --encoder-only"):
            read(path, heads=3)
        assert read(path, heads=3, encoder_only=True).method == "tasks.encode"


def test_positions_of_no_patches(arrays, tmp_path):
    path = file_of(tmp_path, arrays | {"pos_embed": np.zeros((1, 1, 48), np.float32)})
    with pytest.raises(UserError, match="has one row, so it holds no patches"):
        read(path, heads=3)


def test_mean_auto_where_weights_say_nothing_of_their_pixels(arrays, tmp_path, root, caplog):
    """They are read with the heads of the config, and what they do not say is not theirs."""
    path = file_of(tmp_path, arrays)
    encoder = "vit(width=48, depth=1, heads=3, patch=4, mlp_ratio=2.0, learned_positions=True)"
    options = [
        f"init_from.path={path}",
        f"method.args.encoder={encoder}",
        "method.args.mean=auto",
        "method.args.std=auto",
    ]
    found = build(load_config(f"{root}/tests/helpers/tiny_tasks.py:finetune", options))
    assert f"as in {path}" not in " ".join(found.notes)
    assert "ImageNet" not in caplog.text
    assert found.config.method.args.mean != "auto"


def test_a_folder_that_cannot_be_created_is_refused_before_weights_are_read(tmp_path, capsys):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for out, line in (
        (tmp_path / "link", "link is a link to"),
        (tmp_path / "link" / "a", "link is a link to"),
        (tmp_path, "already exists: choose another --out"),
    ):
        found = mistake(capsys, "weights", "import", tmp_path / "nothing", "--out", out)
        assert line in found


def test_values_too_large_for_float32_and_no_files(arrays, tmp_path, capsys):
    path = file_of(tmp_path, arrays | {"norm.bias": np.full(48, 1e300)})
    assert "norm.bias in" in refused(capsys, tmp_path, path, "--heads", 3)
    assert refused(capsys, tmp_path, "/dev/null").startswith("/dev/null is no file: pass a")
