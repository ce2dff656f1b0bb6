"""Images for imported weights are those that transformers' own processor makes of the same files,
within a level or two, and normalized alike; what is not done here is said.
"""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from PIL import Image

from mae_jax import weights
from mae_jax.data.transforms import make_transforms
from mae_jax.methods import make_method
from mae_jax.ops.pixels import normalize
from mae_jax.types import UserError
from mae_jax.weights.processor import images_of
from tests.helpers.commands import run
from tests.weights import models, references
from tests.weights.test_parity import hf_settings
from tests.weights.test_refusals import refused

torch = transformers = None


@pytest.fixture(scope="module", autouse=True)
def reference():
    """Imports it when a test runs, as it takes seconds."""
    global torch, transformers
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers", minversion="5.23")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier of images of 24 x 24, and what it was used with is written beside it."""
    path = tmp_path_factory.mktemp("hf") / "model"
    references.hf_folder("ViTForImageClassification", hf_settings(), path)
    return path


@pytest.fixture(scope="module")
def photo():
    """Smooth noise of 97 x 64 pixels: no whole multiple of anything."""
    small = np.random.default_rng(0).integers(0, 256, (13, 9, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((97, 64), Image.Resampling.BICUBIC))


def described(folder, **content):
    """The folder with another preprocessor_config.json, and the processor that reads it."""
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    kind = content.get("image_processor_type") or content["feature_extractor_type"]
    kind = kind.replace("FeatureExtractor", "ImageProcessor") + "Pil"
    return getattr(transformers, kind).from_pretrained(folder)


def ours(model, photo):
    """[1, H, W, C] float32 as the imported run makes it."""
    image = {"image": photo}
    for transform in make_transforms(weights.transform_of(model)):
        image = transform.apply(image, transform.plan(np.zeros((1, 0)))[0])
    return image["image"][None]


EDGE = dict(shortest_edge=27)
CROP = dict(do_center_crop=True, crop_size=dict(height=24, width=24))
VIT, BIT = (
    dict(image_processor_type="ViTImageProcessor"),
    dict(image_processor_type="BitImageProcessor"),
)
CASES = {
    "squashed": VIT | dict(size=dict(height=24, width=24)),  # bilinear, by default
    "old": dict(feature_extractor_type="ViTFeatureExtractor", size=24, resample=3),
    "cropped": BIT | CROP | dict(size=EDGE, resample=3),
    "bilinear": BIT | CROP | dict(size=EDGE, resample=2),
    "lanczos": BIT | CROP | dict(size=EDGE, resample=1),
    "nearest": BIT | CROP | dict(size=EDGE, resample=0),
    "enlarged": BIT | dict(size=dict(shortest_edge=100), crop_size=24, resample=2),
    "uncut": BIT | CROP | dict(do_resize=False),
    "DeiT": dict(image_processor_type="DeiTImageProcessor", size=28, crop_size=24),
    "Beit": dict(image_processor_type="BeitImageProcessor", size=24),
    "bytes": VIT | dict(size=24, do_rescale=False, image_mean=[127.5] * 3, image_std=[127.5] * 3),
    "neither": VIT | dict(size=24, do_rescale=False, do_normalize=False),
    "factor": VIT
    | dict(size=24, rescale_factor=1 / 127.5, image_mean=[1.0] * 3, image_std=[1] * 3),
    "rescaled": VIT | dict(size=24, do_normalize=False),
    "gray": VIT | dict(size=24, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4]),
}


@pytest.mark.parametrize("name", CASES)
def test_the_processor_of_transformers(name, folder, photo):
    processor = described(folder, **CASES[name])
    model, _ = weights.read(folder)
    pixels = ours(model, photo)
    mine = np.asarray(normalize(jnp.asarray(pixels), model.args["mean"], model.args["std"]))
    theirs = processor(Image.fromarray(photo), return_tensors="np")["pixel_values"]
    theirs = theirs.transpose(0, 2, 3, 1)
    assert mine.shape == theirs.shape == (1, 24, 24, 3) and np.ptp(theirs) > 0.1
    levels = np.abs(mine - theirs) * np.asarray(model.args["std"]) * 255
    print(
        f"\n{name}: {model.images.transform}: {levels.max():.2f} levels, {levels.mean():.3f} mean"
    )
    assert levels.max() < 2.01 and levels.mean() < 0.2
    assert not model.images.remark


def test_features_of_bytes_that_are_not_rescaled(folder, caplog):
    """By their processor and their network, and by ours: images of the right size, so exact."""
    processor = described(folder, **CASES["bytes"])
    images = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), np.uint8)
    model, _ = weights.read(folder)
    assert "multiplies bytes by 1, not by 1/255" in caplog.text
    theirs = transformers.ViTForImageClassification.from_pretrained(folder).eval()
    pixels = processor(list(images), return_tensors="np")["pixel_values"]
    with torch.no_grad():
        expected = theirs.vit(torch.tensor(pixels).float()).last_hidden_state[:, 0].numpy()
    method = make_method(name=model.method, args=model.args, total_steps=1)
    params = traverse_util.unflatten_dict(model.params, sep="/")
    mine = np.asarray(
        method.predict(params, {}, {"image": jnp.asarray(images)}, outputs=["features"])["features"]
    )
    assert np.abs(expected[0] - expected[1]).max() > 0.01
    np.testing.assert_allclose(mine, expected, rtol=0, atol=2e-4 * np.abs(expected).max())


NOT_DONE = {
    "do_pad": (dict(size=24, do_pad=True), "pads images"),
    "hamming": (dict(size=24, resample=5), "has resample=5"),
    "longest": (dict(size=dict(longest_edge=24)), "has size={'longest_edge': 24}"),
    "no crop": (dict(size=dict(shortest_edge=24)), "has size={'shortest_edge': 24}"),
    "no resize": (dict(do_resize=False), "resizes no images"),
    "a large crop": (BIT | dict(size=EDGE, crop_size=28), "crops 28 x 28 of 27 pixels"),
    "box": (dict(size=24, resample=4), "has resample=4"),
    "others": (dict(image_processor_type="ConvNextImageProcessor"), "is of ConvNextImageProcessor"),
    "nameless": (dict(image_processor_type=None, size=24, resample=3), "has size=24"),
}


def test_what_is_not_done_is_said(folder, tmp_path, capsys, caplog):
    command = "weights", "import", folder, "--out"
    for name, (content, remark) in NOT_DONE.items():
        (folder / "preprocessor_config.json").write_text(json.dumps(VIT | content))
        assert run(*command, tmp_path / name) == 0
        line = f"NOT as used with these weights: preprocessor_config.json {remark}"
        assert line in capsys.readouterr().out, name
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["data"]["eval_transform"] == "resize(27)|center_crop(24)"
    described(folder, **CASES["cropped"])
    more = "--image-size", 48, "--positions", "bicubic"
    assert run(*command, tmp_path / "large", *more) == 0
    spec = "resize(54, kernel=bicubic, rounding=down)|center_crop((48, 48))"
    said = f"images: {spec}, as used with these weights, but 24 x 24 pixels are changed to 48 x 48"
    assert said in capsys.readouterr().out
    (folder / "preprocessor_config.json").unlink()
    assert run(*command, tmp_path / "none") == 0
    said = f"images: resize(27)|center_crop(24): {folder} does not state its preprocessing"
    assert said in capsys.readouterr().out


WRONG = {
    "rescale_offset": (dict(rescale_offset=True), "has rescale_offset: true in prep"),
    "factor": (dict(rescale_factor=0), "rescale_factor=0 should be a positive number"),
    "text": (dict(rescale_factor="1/255"), "rescale_factor='1/255' should be a positive"),
    "bytes": (dict(image_mean=[127.5] * 3, image_std=[0.5] * 3), "divide by 255, (0.5, 0.5, 0.5)"),
    "names": (dict(image_mean=["a"], image_std=["b"]), "mean=['a'] should be finite numbers"),
    "nan": (dict(image_mean=[float("nan")], image_std=[0.5]), "should be finite numbers"),
    "zero": (dict(image_mean=[0.5], image_std=[0.0]), "must be positive, in (0, 1]"),
    "two": (dict(image_mean=[0.5] * 2, image_std=[0.5]), "must have 1 value each, or 3"),
}


def test_processors_that_make_no_sense(folder, tmp_path, capsys):
    for content, line in WRONG.values():
        (folder / "preprocessor_config.json").write_text(json.dumps(VIT | content))
        assert line in refused(capsys, tmp_path, folder)
    (folder / "preprocessor_config.json").unlink()
    line = refused(
        capsys, tmp_path, folder, *"--mean 123.7 116.3 103.5 --std 58.4 57.1 57.4".split()
    )
    assert line == (
        "--mean=(123.7, 116.3, 103.5) is outside [0, 1]: pixels are in [0, 1] here: divide by 255, "
        "(0.4851, 0.4561, 0.4059)"
    )


def torchvision(photo, size: int, crop: int, kernel) -> np.ndarray:
    """`Resize(size)` and `CenterCrop(crop)` as torchvision computes them of Pillow's images."""
    height, width = photo.shape[:2]
    short = min(height, width)
    new = [size if side == short else int(size * side / short) for side in (height, width)]
    image = np.asarray(Image.fromarray(photo).resize(new[::-1], kernel))
    top, left = (int(round((side - crop) / 2.0)) for side in new)  # noqa: RUF046
    return image[top : top + crop, left : left + crop]


@pytest.mark.parametrize("width", [96, 97, 100, 103])
def test_the_transforms_of_timm(width, photo):
    photo = np.asarray(Image.fromarray(photo).resize((width, 64), Image.Resampling.BICUBIC))
    pretrained = dict(input_size=[3, 24, 24], crop_pct=0.9, interpolation="bilinear")
    images = images_of({}, pretrained, (24, 24))
    assert images.transform == (
        "resize(26, kernel=bilinear, rounding=down)|center_crop((24, 24), rounding=even)"
    )
    mine = ours(models.mae(image=(24, 24, 3), patch=8)._replace(images=images), photo)[0]
    theirs = torchvision(photo, 26, 24, Image.Resampling.BILINEAR)
    assert np.abs(mine.astype(int) - theirs).max() <= 2
    squashed = images_of({}, pretrained | dict(crop_mode="squash", crop_pct=1.0), (24, 24))
    assert squashed.transform == "resize((24, 24), kernel=bilinear)"
    for more in (
        dict(crop_mode="border"),
        dict(interpolation="random"),
        dict(input_size=[3, 24, 32]),
    ):
        images = images_of({}, pretrained | more, (24, 24))
        assert not images.transform and images.remark


def test_arguments_of_transforms_that_there_are_not():
    for spec, line in (
        ("resize(24, kernel=sinc)", "resize: kernel 'sinc' is unknown: choose bicubic, bilinear"),
        ("resize(24, rounding=up)", "resize: rounding 'up' is unknown: choose nearest, down"),
        (
            "center_crop(24, rounding=up)",
            "rounding 'up' is unknown: choose down, even",
        ),
    ):
        with pytest.raises(UserError, match=line):
            make_transforms(spec)
