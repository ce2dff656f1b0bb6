"""Weights of other libraries, read and run by us, against those libraries: golden results of timm
and transformers always, and live ones where torch, transformers and timm are installed; and weights
that we wrote, read and run by them. `tests/weights/parity.py` compares at full size.
"""

import numpy as np
import pytest
from safetensors.numpy import load_file

from mae_jax import weights
from tests.weights import parity, references

pytestmark = pytest.mark.slow

TOLERANCE = 3e-6
"""Of small networks in float32, relative to the largest value: a few units in the last place."""
PIXELS = dict(mean=(0.5,), std=(0.25,))
"""What files of one channel do not say. It plays no part: images are normalized already."""
THOROUGH = pytest.mark.thorough
TIMM = ["mae", "mean", "token", "one_channel", "enlarged", "reduced"]
RESIZED = ["enlarged", "reduced"]
SIZES = [(32, 28), (16, 20)]
"""Larger and smaller than those of the live models."""


def check(lines: list[parity.Line]) -> None:
    """Every output is near the reference's, and the reference's is not all zeros."""
    assert lines
    for line in lines:
        print(f"\n{line.output}: error {line.error:.1e}, largest {line.scale:.1e}", end="")
        assert line.scale > 0.1 and line.relative <= TOLERANCE, line


def differ(lines: list[parity.Line]) -> None:
    """Every output is far from the reference's."""
    assert lines
    for line in lines:
        assert line.relative > 100 * TOLERANCE, line


def timm_case(name: str, folder, **more):
    """A golden case of timm, and the options to read it with."""
    reference, settings = references.golden_timm(name, folder / "model.safetensors")
    size = reference.images.shape[2:]
    positions = "antialias" if name in RESIZED else None
    options = dict(heads=settings["num_heads"], image_size=size, positions=positions)
    return reference, settings, options | PIXELS | more


def hf_settings(image_size: tuple[int, int] = (24, 24)) -> dict:
    """Of a small model of transformers."""
    config_of = references.golden("make_vitmae").config_of
    return {"num_labels": 6} | config_of(
        image_size=image_size,
        patch=4,
        channels=3,
        encoder=(48, 2, 3),
        decoder=(32, 2, 4),
        mask_ratio=0.75,
        norm_pix_loss=True,
    )


def timm_settings(**more) -> dict:
    """Of a small model of timm."""
    config_of = references.golden("make_timm").config_of
    return config_of(image_size=(20, 20), patch=4, channels=3, shape=(48, 2, 3), **more)


@pytest.fixture
def transformers():
    """Skips where there are none."""
    reason = "the live comparison needs torch and transformers"
    pytest.importorskip("torch", reason=reason)
    return pytest.importorskip("transformers", minversion="5.23", reason=reason)


@pytest.fixture
def timm():
    """Skips where there is none."""
    pytest.importorskip("torch", reason="the live comparison needs torch and timm")
    try:
        return references.golden("make_timm").import_timm()[0]
    except ImportError:
        pytest.skip("the live comparison needs timm")


@pytest.mark.parametrize("name", TIMM)
def test_golden_timm(tmp_path, name):
    reference, _, options = timm_case(name, tmp_path)
    check(parity.compare(reference, **options))


@pytest.mark.parametrize("name", ["enlarged", pytest.param("reduced", marks=THOROUGH)])
def test_positions_are_not_resampled_as_by_others(tmp_path, name):
    reference, _, options = timm_case(name, tmp_path, positions="bicubic")
    differ(parity.compare(reference, **options))


@pytest.mark.parametrize(
    "name", [pytest.param("pixels", marks=THOROUGH), "normalized", "one_channel", "wide"]
)
def test_golden_transformers(tmp_path, name):
    reference, _ = references.golden_mae(name, tmp_path / "model", layout="published")
    check(parity.compare(reference, **PIXELS))


@pytest.mark.parametrize("name", ["pixels", pytest.param("normalized", marks=THOROUGH)])
def test_golden_in_the_official_layout(tmp_path, name):
    file = tmp_path / "model.safetensors"
    reference, settings = references.golden_mae(name, file, layout="official")
    options = dict(
        heads=settings["num_attention_heads"],
        decoder_heads=settings["decoder_num_attention_heads"],
        target="normalized" if name == "normalized" else "pixels",
    )
    check(parity.compare(reference, **options))


@pytest.mark.parametrize("name", sorted({*TIMM} - {*RESIZED}))
def test_timm_gets_back_what_it_gave(tmp_path, name):
    reference, _, options = timm_case(name, tmp_path)
    weights.write(parity.imported(reference.path, **options), tmp_path / "out.safetensors", "timm")
    same_arrays(load_file(tmp_path / "out.safetensors"), load_file(reference.path))


@pytest.mark.parametrize("layout", ["published", "official"])
def test_mae_gets_back_what_it_gave(tmp_path, layout):
    hf = layout == "published"
    path, out = (tmp_path / (f"{n}" if hf else f"{n}.safetensors") for n in ("model", "out"))
    reference, settings = references.golden_mae("normalized", path, layout=layout)
    heads = dict(heads=3, decoder_heads=2, target="normalized")
    model = parity.imported(reference.path, **({} if hf else heads))
    weights.write(model, out, "hf" if hf else "mae")
    files = (place / "model.safetensors" if hf else place for place in (out, path))
    same_arrays(*map(load_file, files))


def same_arrays(mine: dict, theirs: dict) -> None:
    """Names, shapes and values; fixed positions are computed anew."""
    assert {name: array.shape for name, array in mine.items()} == {
        name: array.shape for name, array in theirs.items()
    }
    for name, array in theirs.items():
        assert mine[name].dtype == array.dtype, name
        atol = 1.2e-7 if "pos" in name else 0
        np.testing.assert_allclose(mine[name], array, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=() if "MAEFor" in k else THOROUGH) for k in references.KINDS],
)
def test_transformers(transformers, tmp_path, kind):
    """As it saves its models, and back into it."""
    settings = hf_settings()
    reference = references.hf_folder(kind, settings, tmp_path / "model")
    model = parity.imported(reference.path)
    mine = parity.ours(model, reference.images, reference.noise)
    check(parity.compared(mine, reference.outputs))
    weights.write(model, tmp_path / "out", "hf")
    again = references.hf_outputs(kind, tmp_path / "out", reference.images, reference.noise)
    check(parity.compared(again, reference.outputs))


def test_transformers_oblong(transformers, tmp_path):
    """Positions of no square, which its masked autoencoder does not know."""
    folder = tmp_path / "model"
    settings = hf_settings(image_size=(8, 20))
    check(parity.compare(references.hf_folder("ViTForImageClassification", settings, folder)))


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        pytest.param("ViTMAEModel", SIZES[0], marks=THOROUGH),
        ("ViTForImageClassification", SIZES[1]),
        pytest.param("ViTMAEModel", SIZES[1], marks=THOROUGH),
        pytest.param("ViTForImageClassification", SIZES[0], marks=THOROUGH),
    ],
)
def test_transformers_at_another_size(transformers, tmp_path, kind, size):
    reference = references.hf_folder(kind, hf_settings(), tmp_path / "model", image_size=size)
    check(parity.compare(reference, image_size=size, positions="bicubic"))
    differ(parity.compare(reference, image_size=size, positions="antialias"))


def test_official_checkpoint(transformers, tmp_path):
    """A .pth file as training writes it: arrays and arguments in one."""
    settings = hf_settings()
    folder = tmp_path / "model"
    reference = references.hf_folder("ViTMAEForPreTraining", settings, folder, original_names=False)
    path = references.official_file(folder, tmp_path / "checkpoint-799.pth")
    options = dict(heads=3, decoder_heads=4, target="normalized")
    check(parity.compare(reference._replace(path=path), **options))


@pytest.mark.parametrize(
    "more", [pytest.param({}, marks=THOROUGH), dict(classes=5, pool="avg"), dict(classes=5)]
)
def test_timm(timm, tmp_path, more):
    """From a .pth file of its own, and back into it."""
    settings = timm_settings(**more)
    reference = references.timm_file(settings, tmp_path / "model.pth")
    model = parity.imported(reference.path, heads=3)
    mine = parity.ours(model, reference.images, reference.noise)
    check(parity.compared(mine, reference.outputs))
    out = tmp_path / "out.safetensors"
    weights.write(model, out, "timm")
    again = references.timm_outputs(settings, out, reference.images)
    check(parity.compared(again, reference.outputs))


@pytest.mark.parametrize("size", [SIZES[0], pytest.param(SIZES[1], marks=THOROUGH)])
def test_timm_at_another_size(timm, tmp_path, size):
    path = tmp_path / "model.safetensors"
    reference = references.timm_file(timm_settings(), path, image_size=size)
    check(parity.compare(reference, heads=3, image_size=size, positions="antialias"))
