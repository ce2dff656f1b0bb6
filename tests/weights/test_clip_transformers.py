"""CLIP's weights against transformers: embeddings and logits of random weights, read from what it
writes, and written so that it reads them.
"""

import functools

import jax
import numpy as np
import pytest
from flax import traverse_util

from mae_jax import weights
from mae_jax.methods import make_method
from tests.weights import clip_models as clip

pytestmark = pytest.mark.slow

torch = transformers = None


@pytest.fixture(scope="module", autouse=True)
def reference():
    """Imports it when a test runs, as it takes seconds."""
    global torch, transformers
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers", minversion="4.40")


def random_model(vision, text):
    """A `CLIPModel` with these activations."""
    settings = clip.config(vision, text)
    model = transformers.CLIPModel(transformers.CLIPConfig(**settings)).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model


def opened(kind, folder):
    """A model that transformers loads without anything missing or left over."""
    model, report = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def pixels_of(model, images):
    """[B, C, H, W] float64, normalized by NumPy."""
    mean, std = (np.array(model.args[name]) for name in ("mean", "std"))
    return torch.tensor((images / 255 - mean) / std).permute(0, 3, 1, 2)


def theirs_of(theirs, model, batch, **options):
    """Outputs of transformers in float64."""
    with torch.no_grad():
        found = theirs.double()(
            pixel_values=pixels_of(model, batch["image"]),
            input_ids=torch.tensor(batch["text"]).long(),
            attention_mask=torch.tensor(batch["text_valid"]).long(),
            **options,
        )
    names = dict(image_embedding="image_embeds", text_embedding="text_embeds")
    return {ours: found[name].numpy() for ours, name in names.items()} | {
        "logits": found["logits_per_image"].numpy()
    }


def ours_of(model, batch, *names):
    """Outputs of the imported model, and the logits of its embeddings."""
    method = make_method(name=model.method, args=model.args)
    params = traverse_util.unflatten_dict(model.params, sep="/")
    with jax.default_matmul_precision("highest"):
        run = jax.jit(functools.partial(method.predict, outputs=names))
        found = jax.device_get(run(params, {}, batch))
    if {"image_embedding", "text_embedding"} <= {*names}:
        scale = np.exp(model.params["logit_scale"])
        found["logits"] = scale * found["image_embedding"] @ found["text_embedding"].T
    return found


def compare(found, expected):
    for name, array in expected.items():
        error, scale = np.abs(found[name] - array).max(), np.abs(array).max()
        print(f"{name}: {error:.1e} of {scale:.2f}")
        assert found[name].shape == array.shape and error < 1e-5 * max(scale, 1), name


OUTPUTS = ("image_embedding", "text_embedding")


@pytest.mark.parametrize(("vision", "text"), [("quick_gelu", "gelu"), ("gelu", "quick_gelu")])
def test_embeddings_and_logits_in_and_out(vision, text, tmp_path):
    theirs = random_model(vision, text)
    theirs.save_pretrained(tmp_path / "hf")
    clip.WORDS.save(tmp_path / "hf" / "tokenizer.json")
    model, table = weights.read(tmp_path / "hf")
    assert not [row for row in table if row.ours.startswith("(") or row.theirs.startswith("(")]
    batch = clip.batch()
    compare(ours_of(model, batch, *OUTPUTS), theirs_of(theirs, model, batch))
    # A run that was trained here has a bias of its patch embedding, too.
    rng = np.random.default_rng(2)
    params = {
        path: array + 0.1 * rng.standard_normal(array.shape).astype(np.float32)
        for path, array in model.params.items()
    }
    model = model._replace(params=params)
    weights.write(model, tmp_path / "out", "clip")
    compare(
        ours_of(model, batch, *OUTPUTS),
        theirs_of(opened("CLIPModel", tmp_path / "out"), model, batch),
    )


def test_larger_images(tmp_path):
    theirs = random_model("quick_gelu", "quick_gelu")
    theirs.save_pretrained(tmp_path / "hf")
    options = weights.Options(image_size=(16, 16), positions="bicubic")
    model, batch = weights.read(tmp_path / "hf", options)[0], clip.batch(16)
    expected = theirs_of(theirs, model, batch, interpolate_pos_encoding=True)
    compare(ours_of(model, batch, *OUTPUTS), expected)


def test_the_tower_of_images_alone(tmp_path):
    theirs = random_model("gelu", "gelu").vision_model
    theirs.save_pretrained(tmp_path / "hf")
    model, _ = weights.read(tmp_path / "hf")
    assert model.method == "tasks.encode"
    images = clip.batch()["image"]
    with torch.no_grad():
        pooled = theirs.double()(pixels_of(model, images)).pooler_output.numpy()
    compare(ours_of(model, {"image": images}, "features"), {"features": pooled})
    weights.write(model, tmp_path / "out", "clip")
    again = opened("CLIPVisionModel", tmp_path / "out")
    with torch.no_grad():
        again = again.double()(pixels_of(model, images)).pooler_output.numpy()
    np.testing.assert_array_equal(again, pooled)


def test_its_tokenizer_and_processor(tmp_path):
    """Of a folder that is written here; `CLIPProcessor` writes the latter into another file."""
    path = clip.write(tmp_path / "hf", clip.arrays(), clip.config())
    weights.write(weights.read(path)[0], tmp_path / "out", "clip")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = ["a small red cat", "a photo of a dog", "unknown"]
    found = tokenizer(texts, padding=True)
    for text, ids, valid in zip(texts, found["input_ids"], found["attention_mask"], strict=True):
        assert ids[: sum(valid)] == next(clip.WORDS.encode([text]))
    images = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
    images = images.from_pretrained(tmp_path / "out")
    transformers.CLIPProcessor(images, tokenizer).save_pretrained(tmp_path / "processor")
    (path / "preprocessor_config.json").unlink()
    for file in (tmp_path / "processor").glob("*processor_config.json"):
        file.rename(path / file.name)
    assert (path / "processor_config.json").exists()
    model, _ = weights.read(path)
    batch = clip.batch()["image"]
    pixels = images(list(batch), return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(pixels, pixels_of(model, batch).numpy(), atol=1e-6)
    assert model.images.transform == "resize(8, kernel=bicubic, rounding=down)|center_crop((8, 8))"
