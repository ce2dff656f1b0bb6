"""What is no `CLIPModel` of transformers, or cannot become one: refused in one line."""

import json

import numpy as np
import pytest

from mae_jax import weights
from mae_jax.data import vocabulary
from mae_jax.types import UserError
from mae_jax.weights import Options
from mae_jax.weights.export import convert
from mae_jax.weights.saving import write_file
from tests.weights import clip_models as clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return clip.write(tmp_path_factory.mktemp("clip") / "hf", clip.arrays(), clip.config())


@pytest.fixture(scope="module")
def model(folder):
    return weights.read(folder)[0]


ENDED = clip.WORDS.content["post_processor"]
"""How the tokenizer adds [CLS] and [SEP] to texts."""
SIGLIP = {"logit_bias": np.float32([0.0]), "vision_model.head.probe": np.ones((1, 1, 16), "f4")}


@pytest.mark.parametrize(
    ("left_out", "more", "changes", "message"),
    [
        (
            r"vision_model.embeddings.class_embedding",
            SIGLIP,
            {},
            "no class token, which these .*Sig",
        ),
        (r"vision_model.", {}, {}, "looks like CLIP or SigLIP without the tower of images"),
        (r"text_projection.weight", {}, {}, "lacks text_projection/kernel: it is incomplete"),
        (r"visual_projection.weight", {}, {}, "lacks parameters of clip_vit.*image_projection"),
        ("", {"text_model.more": np.ones(3, "f4")}, {}, "unknown arrays: text_model.more"),
        ("", {}, dict(model_type="chinese_clip"), "has model_type='chinese_clip' in its config"),
        ("", {}, dict(model_type=None), "has no config.json of CLIP, and numbers of heads"),
        ("", {}, dict(vision_config=[]), "vision_config is damaged: it is no JSON object"),
        ("", {}, dict(vision_config=dict(image_size="8")), "image_size='8', which is not supp"),
        ("", {}, dict(vision_config=dict(image_size=16)), "image_size=16, and the weights have"),
        ("", {}, dict(text_config=dict(vocab_size=9)), "vocab_size=9 in config.json, 12 in the"),
        ("", {}, dict(text_config=dict(hidden_act="relu")), "hidden_act of text_config 'relu'"),
    ],
)
def test_other_models_are_refused(tmp_path, left_out, more, changes, message):
    arrays = clip.arrays() | more
    arrays = {k: v for k, v in arrays.items() if not left_out or not k.startswith(left_out)}
    settings = clip.config()
    for key, value in changes.items():
        settings[key] = settings[key] | value if isinstance(value, dict) else value
    with pytest.raises(UserError, match=message) as error:
        weights.read(clip.write(tmp_path / "other", arrays, settings))
    assert "\n" not in str(error.value)


def test_options_and_tokenizers_that_do_not_fit_are_refused(folder, tmp_path):
    for options, message in (
        (Options(heads=4), "--heads 4 contradicts"),
        (Options(target="pixels"), "--target pixels describes a decoder, and"),
        (Options(layout="hf"), "looks like CLIP or SigLIP: its arrays .* layout of hf"),
    ):
        with pytest.raises(UserError, match=message):
            weights.read(folder, options)
    large = vocabulary.of_words([f"w{i}" for i in range(30)])
    path = clip.write(tmp_path / "large", clip.arrays(), clip.config(), tokenizer=large)
    with pytest.raises(UserError, match="has 35 tokens, and the model 12: remove the file"):
        weights.read(path)
    write_file(tmp_path / "alone.safetensors", clip.arrays(), {})
    with pytest.raises(UserError, match="no config.json of CLIP"):
        weights.read(tmp_path / "alone.safetensors")


@pytest.mark.parametrize(
    ("argument", "old", "new", "message"),
    [
        (
            "encoder",
            "clip_vit",
            "vit",
            "clip holds encoders of the kind clip_vit alone: choose --format hf, mae",
        ),
        ("encoder", "patch=4", "patch=(2, 8)", "clip needs patches of a square side"),
        ("pool", "cls", "mean", "the layout clip needs pool=cls: use --format stablehlo"),
        ("loss", "infonce", "sigmoid", "the layout clip needs loss=infonce"),
        ("text", "causal=True", "causal=False", "needs causal=True of text_tower"),
        ("text", "'last'", "mean", "needs pool=last of text_tower"),
    ],
)
def test_other_runs_are_not_written(model, argument, old, new, message):
    assert old in model.args[argument]
    args = model.args | {argument: model.args[argument].replace(old, new)}
    with pytest.raises(UserError, match=message):
        convert(model._replace(args=args), "clip")


def test_images_norms_and_tokenizers_that_do_not_fit_are_not_written(model, caplog):
    pytest.importorskip("tokenizers")
    for layout in ("hf", "timm", "mae"):
        with pytest.raises(UserError, match=f"{layout} holds .* vit alone: choose --format clip"):
            convert(model, layout)
    with pytest.raises(UserError, match="the layout clip needs square images"):
        convert(model._replace(image=(8, 16, 3)), "clip")
    params = {k: v for k, v in model.params.items() if not k.startswith("encoder/norm/")}
    with pytest.raises(UserError, match="the layout clip needs final_norm=True"):
        convert(model._replace(params=params), "clip")
    content = json.loads(json.dumps(clip.WORDS.content).replace("[SEP]", "[STOP]"))
    with pytest.raises(UserError, match="pools texts at their end token, and that of the run"):
        convert(model._replace(vocabulary=content), "clip")
    end = {"SpecialToken": {"id": "[SEP]", "type_id": 0}}
    for single in ([{"Sequence": {"id": "A", "type_id": 0}}], [end, *ENDED["single"][1:]]):
        content = clip.WORDS.content | {"post_processor": ENDED | {"single": single}}
        with pytest.raises(
            UserError, match=r"at the first '\[SEP\]', and the run's tokenizer does"
        ):
            convert(model._replace(vocabulary=content), "clip")
    files = convert(model._replace(vocabulary={}), "clip").files
    assert "tokenizer.json" not in files and "no tokenizer: transformers will" in caplog.text
    assert files["config.json"]["text_config"]["eos_token_id"] == 2
