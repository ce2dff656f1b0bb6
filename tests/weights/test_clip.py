"""CLIP's weights in and out: every bit comes back, and the commands use them."""

import functools
import json

import jax
import numpy as np
import pytest
from flax import traverse_util
from PIL import Image
from safetensors.numpy import load_file

from mae_jax import weights
from mae_jax.config import load_config
from mae_jax.data import vocabulary
from mae_jax.engine.checkpoint import Checkpoints
from mae_jax.methods import make_method
from mae_jax.models.vit import ViT
from mae_jax.ops.posemb import with_prefix
from mae_jax.run import build
from mae_jax.sharing.facts import read_facts
from mae_jax.sharing.loading import loading
from mae_jax.spec import build as build_network
from mae_jax.types import UserError
from mae_jax.weights import Options
from mae_jax.weights.export import convert
from mae_jax.weights.infer import vit_spec
from mae_jax.workdir import claim
from tests.helpers import tiny
from tests.helpers.commands import mistake, run
from tests.weights import clip_models as clip

TASKS = "tests/helpers/tiny_tasks.py"


@pytest.fixture(scope="module", autouse=True)
def in_the_project(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return clip.write(tmp_path_factory.mktemp("clip") / "hf", clip.arrays(), clip.config())


@pytest.fixture(scope="module")
def model(folder):
    return weights.read(folder)[0]


def same(found, expected):
    """Whether two dictionaries of arrays are equal to the bit."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].shape == array.shape, name
        np.testing.assert_array_equal(found[name].view(np.uint32), array.view(np.uint32), name)


def read_json(path):
    return json.loads(path.read_text())


def test_they_go_back_bit_for_bit(folder, model, tmp_path):
    assert model.method == "clip" and model.image == (8, 8, 3)
    out = tmp_path / "out"
    table = weights.write(model, out, "clip")
    same(load_file(out / "model.safetensors"), clip.arrays())
    assert not [row for row in table if "left over" in row.theirs]
    written, given = read_json(out / "config.json"), read_json(folder / "config.json")
    for part in ("vision_config", "text_config"):
        theirs, ours = given.pop(part), written.pop(part)
        assert {key: ours[key] for key in theirs} == theirs
    assert {key: written[key] for key in given} == given
    assert read_json(out / "preprocessor_config.json") == clip.PROCESSOR
    assert read_json(out / "tokenizer.json") == clip.WORDS.content
    again, _ = weights.read(out)
    assert again._replace(params={}) == model._replace(params={})


def test_a_run_of_them_goes_back_bit_for_bit(folder, tmp_path, capsys):
    imported, out = tmp_path / "imported", tmp_path / "out"
    assert run("weights", "import", folder, "--out", imported) == 0
    printed = capsys.readouterr().out
    assert f"texts: {imported / 'vocabulary.json'} is the tokenizer.json of {folder}" in printed
    assert "left over" not in printed and "(created)" not in printed
    assert vocabulary.load(imported).fingerprint == clip.WORDS.fingerprint
    assert run("weights", "export", "--run", imported, "--format", "clip", "--out", out) == 0
    same(load_file(out / "model.safetensors"), clip.arrays())
    line = "images: in transformers resize(8, kernel=bicubic, rounding=down)|center_crop((8, 8))"
    assert line in capsys.readouterr().out
    card = (out / "README.md").read_text()
    assert "library_name: transformers" in card and f"CLIPModel.from_pretrained('{out}')" in card
    text = "\n".join(loading(read_facts(imported), "run", None))
    assert "--format clip --out exported" in text and text.count("not possible") == 2


def test_files_of_older_versions(model, tmp_path):
    """They hold numbers of positions, leave out defaults, and may have a second description."""
    arrays, settings = clip.arrays(), clip.config()
    for part, count in (("vision_model", 5), ("text_model", clip.LENGTH)):
        arrays[f"{part}.embeddings.position_ids"] = np.arange(count)[None]
    for part in ("vision_config", "text_config"):
        settings[f"{part}_dict"] = settings[part]
    del settings["vision_config_dict"]["hidden_act"], settings["vision_config_dict"]["num_channels"]
    settings["vision_config"] = {"hidden_act": "gelu"}
    found, table = weights.read(clip.write(tmp_path / "old", arrays, settings))
    same(found.params, model.params)
    assert found.args == model.args
    unused = [row.theirs for row in table if row.ours == "(not used: no weights)"]
    assert len(unused) == 2 and all(name.endswith("position_ids") for name in unused)


def test_the_tower_of_images_alone(model, tmp_path):
    for prefix in ("vision_model.", ""):  # of versions 4 and 5
        start = "vision_model."
        arrays = {k: v for k, v in clip.arrays().items() if k.startswith(start)}
        arrays = {f"{prefix}{k.removeprefix(start)}": v for k, v in arrays.items()}
        settings = clip.config()["vision_config"] | dict(model_type="clip_vision_model")
        path = clip.write(tmp_path / f"tower{prefix}", arrays, settings, tokenizer=None)
        tower, _ = weights.read(path)
        assert tower.method == "tasks.encode" and tower.args["encoder"] == model.args["encoder"]
        same(tower.params, {k: v for k, v in model.params.items() if k.startswith("encoder/")})
    arrays = convert(model, "clip", encoder_only=True).arrays
    assert arrays.keys() == {k for k in clip.shapes() if k.startswith("vision_model.")}
    arrays["visual_projection.weight"] = clip.arrays()["visual_projection.weight"]
    path = clip.write(tmp_path / "projected", arrays, settings)
    with pytest.raises(UserError, match="its projection, without the tower of texts: leave"):
        weights.read(path)
    assert weights.read(path, Options(encoder_only=True))[0].params.keys() == tower.params.keys()


def outputs(model, batch, *names):
    """Outputs of a model, by name."""
    method = make_method(name=model.method, args=model.args)
    params = traverse_util.unflatten_dict(model.params, sep="/")
    with jax.default_matmul_precision("highest"):
        predict = jax.jit(functools.partial(method.predict, outputs=names))
        return jax.device_get(predict(params, {}, batch))


def test_a_bias_of_patches_and_fixed_positions_are_written_as_positions(model, tmp_path):
    params = dict(model.params)
    bias = np.random.default_rng(3).normal(size=16).astype(np.float32)
    params["encoder/embed/bias"] = bias
    del params["encoder/positions"]
    fixed = f"{model.args['encoder'][:-1]}, learned_positions=False)"
    ours = model._replace(params=params, args=model.args | dict(encoder=fixed))
    weights.write(ours, tmp_path / "out", "clip")
    found, _ = weights.read(tmp_path / "out")
    assert not found.params["encoder/embed/bias"].any()
    table = with_prefix((2, 2), 16)
    np.testing.assert_array_equal(found.params["encoder/positions"][0], table[0])
    batch = clip.batch()
    expected = outputs(ours, batch, "image_embedding", "tokens")
    for name, array in outputs(found, batch, "image_embedding", "tokens").items():
        np.testing.assert_allclose(array, expected[name], atol=1e-5)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes, whose names the tokenizer knows, of noise."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        for i in range(6):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def results(folder):
    (path,) = folder.glob("results*.json")
    found = read_json(path)["results"]
    path.unlink()
    return [*found.values()][-1]


@pytest.mark.slow
def test_images_without_captions_are_classified_by_prompts(folder, photos, tmp_path, capsys):
    imported, bare = tmp_path / "imported", tmp_path / "bare"
    assert run("weights", "import", folder, "--out", imported) == 0
    zero_shot = "zero_shot(prompts=('a photo of a {}', 'a {}'))"
    evaluate = "evaluate", "--run", imported, "--images", photos, "--evals"
    assert run(*evaluate, f"{zero_shot}|knn(k=1)", "--train", photos) == 0
    found, (model, _) = results(imported), weights.read(folder)
    assert found["knn"] == 1  # each image is its own neighbor
    files = sorted(photos.glob("*/*.png"))
    images = np.stack([np.asarray(Image.open(file)) for file in files])
    prompts = [f"{start} {name}" for name in ("cat", "dog") for start in ("a photo of a", "a")]
    texts = np.zeros((4, clip.LENGTH), np.int32)
    for row, numbers in zip(texts, clip.WORDS.encode(prompts), strict=True):
        row[: len(numbers)] = numbers
    batch = {"image": images, "text": texts, "text_valid": texts > 0}
    embedded = outputs(model, batch, "image_embedding")["image_embedding"]
    directions = outputs(model, batch, "text_embedding")["text_embedding"]
    directions = directions.reshape(2, 2, -1).mean(axis=1)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    labels = [file.parent.name == "dog" for file in files]
    right = np.mean((embedded @ directions.T).argmax(axis=1) == labels)
    assert 0 < right < 1 and found["zero_shot"] == pytest.approx(right)
    vocabulary.of_words(("cat",)).save(tmp_path / "other.json")
    source = f"uncaptioned({str(photos)!r}, tokenizer={str(tmp_path / 'other.json')!r}, length=7)"
    line = mistake(capsys, *evaluate[:3], "--images", source, "--evals", zero_shot)
    assert "have the vocabulary" in line and "read them with the same tokenizer" in line
    without = clip.write(tmp_path / "without", clip.arrays(), clip.config(), tokenizer=None)
    assert run("weights", "import", without, "--out", bare) == 0
    assert "has no tokenizer.json, which zero_shot needs: copy that" in capsys.readouterr().out
    evaluate = "evaluate", "--run", bare, "--images", photos, "--evals"
    assert "copy the tokenizer.json of the model" in mistake(capsys, *evaluate, zero_shot)


@pytest.mark.slow
def test_a_run_of_captions_without_labels_classifies_by_prompts(model, photos, tmp_path):
    """With the tokenizer that it has recorded."""
    (tmp_path / "run").mkdir()
    for file in photos.glob("*/*.png"):
        caption = tmp_path / "captions" / file.relative_to(photos).with_suffix(".txt")
        caption.parent.mkdir(parents=True, exist_ok=True)
        caption.write_text(f"a {file.parent.name}")
    clip.WORDS.save(tmp_path / "tok.json")
    captions, tokenizer = str(tmp_path / "captions"), str(tmp_path / "tok.json")
    config = tiny.get_config()
    config.data.update(batch_size=4, test="", fields=("text", "text_valid"))
    config.data.train = f"captioned({str(photos)!r}, {captions=}, {tokenizer=}, length=7)"
    config.data.train_transform = config.data.eval_transform = "resize(8)"
    config.method = dict(name="clip", args=model.args)
    config.evals.run = ""
    started = build(config)
    claim(tmp_path / "run", config, started.data.fingerprints())
    started.data.vocabulary.save(tmp_path / "run")
    with Checkpoints(tmp_path / "run" / "checkpoints", every=1) as checkpoints:
        checkpoints.save(started.initial_state(), 1)
    command = "evaluate", "--run", tmp_path / "run", "--images", photos, "--evals", "zero_shot"
    assert run(*command) == 0
    assert 0 <= results(tmp_path / "run")["zero_shot"] <= 1


@pytest.mark.slow
def test_fine_tuning_starts_from_the_tower_of_images(folder, model, tmp_path):
    weights.write_run(model, tmp_path / "imported")
    encoder = model.args["encoder"]
    for path in (folder, tmp_path / "imported"):
        changes = [f"init_from.path={path}", f"method.args.encoder={encoder}"]
        start = build(load_config(f"{TASKS}:finetune", changes)).loaded_state().params["encoder"]
        for name in ("block_1/attention/qkv/kernel", "input_norm/scale", "cls_token"):
            array = functools.reduce(lambda part, key: part[key], name.split("/"), start)
            np.testing.assert_array_equal(array, model.params[f"encoder/{name}"])
    changes[1] = changes[1].replace("clip_vit", "vit")
    with pytest.raises(UserError, match="has another architecture: it is clip_vit"):
        build(load_config(f"{TASKS}:finetune", changes)).loaded_state()


def test_positions_come_to_another_size_only_on_request(folder):
    with pytest.raises(UserError, match="table is for 2 x 2 patches, not 4 x 4"):
        weights.read(folder, Options(image_size=(16, 16)))
    found, _ = weights.read(folder, Options(image_size=(16, 16), positions="bicubic"))
    assert found.image == (16, 16, 3) and found.params["encoder/positions"].shape == (17, 16)


@pytest.mark.parametrize(("width", "hidden"), [(176, 240), (1664, 8192), (16, 64), (49, 1)])
def test_the_hidden_width_of_an_mlp_is_exact(width, hidden):
    """Though 240 / 176 * 176 is less than 240 in floating point."""
    spec = vit_spec(dict(width=width, depth=1, heads=1), 4, hidden)
    network = build_network(spec, "models", ViT)
    assert int(network.width * network.mlp_ratio) == hidden
