"""Targets of masked autoencoders against float64 numpy: low-pass, HOG and principal components."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.methods import mae
from mae_jax.ops.patches import patchify, unpatchify
from mae_jax.ops.pixels import normalize
from mae_jax.spec import build
from mae_jax.targets import Target, TargetContext, hog, lowpass, pca
from mae_jax.types import UserError

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def images_of(shape, count=2, seed=0):
    """Random smooth images [count, *shape] uint8."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(count, *shape))
    for axis in range(1, images.ndim - 1):
        images = images + np.roll(images, 1, axis) + np.roll(images, 2, axis)
    low, high = images.min(), images.max()
    return np.round(255 * (images - low) / (high - low)).astype(np.uint8)


def context_of(patch, channels, take=lambda patches: patches):
    """The context of a method with these patches."""
    mean, std = MEAN[:channels], STD[:channels]
    return TargetContext(
        patch=patch, take=take, normalize=lambda x, pixels=1: normalize(x, mean, std, pixels=pixels)
    )


def inputs_of(images):
    """Normalized images in float64."""
    channels = images.shape[-1]
    return (images / 255.0 - np.asarray(MEAN[:channels])) / np.asarray(STD[:channels])


def made(text, images, patch, take=lambda patches: patches, constants=None):
    """The targets of a spec string."""
    target, context = build(text, "targets", Target), context_of(patch, images.shape[-1], take)
    values = np.asarray(jax.jit(lambda x: target.make(constants or {}, x, context))(images))
    assert values.dtype == np.float32
    assert values.shape[2] == target.width(patch, images.shape[-1])
    return values


def filtered(images, radius):
    """The sum of all frequencies up to a radius, one at a time."""
    space = images.shape[1:-1]
    index = np.indices(space)
    result = np.zeros(images.shape, complex)
    axes = tuple(range(1, images.ndim - 1))
    for k in itertools.product(*(range(-(n // 2), (n + 1) // 2) for n in space)):
        if math.hypot(*(a / n for a, n in zip(k, space, strict=True))) <= radius:
            phase = sum(a * x / n for a, x, n in zip(k, index, space, strict=True))
            wave = np.exp(2j * np.pi * phase)[None, ..., None]
            result += wave * (images * wave.conj()).mean(axis=axes, keepdims=True)
    assert np.abs(result.imag).max() < 1e-9 or all(n % 2 for n in space)
    return result.real


@pytest.mark.parametrize(
    ("shape", "patch", "radius"),
    [((12, 9, 3), (4, 3), 0.18), ((24, 1), (4,), 0.25), ((4, 6, 5, 2), (2, 3, 5), 0.3)],
    ids=["image", "signal", "volume"],
)
def test_low_pass_is_the_sum_of_its_frequencies(shape, patch, radius):
    images = images_of(shape)
    expected = patchify(filtered(inputs_of(images), radius), patch)
    plain = made(f"lowpass(radius={radius}, normalize=False)", images, patch)
    np.testing.assert_allclose(plain, expected, atol=2e-5)
    mean, std = expected.mean(2, keepdims=True), expected.std(2, keepdims=True, ddof=1)
    found = made(f"lowpass(radius={radius})", images, patch)
    np.testing.assert_allclose(found, (expected - mean) / np.sqrt(std**2 + 1e-6), atol=1e-3)


def test_low_pass_of_everything_is_the_image():
    images = images_of((8, 12, 3))
    found = made("lowpass(radius=0.75)", images, (4, 4))
    np.testing.assert_allclose(found, made("pixels", images, (4, 4)), atol=1e-4)


def hog_by_definition(images, cell):
    """MaskFeat's histograms [B, rows, columns, C, 9] of normalized images, pixel by pixel."""
    x = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    batch, height, width, channels = images.shape
    sobel = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    offsets = np.arange(2 * cell) - (2 * cell - 1) / 2
    kernel = np.exp(-0.5 * (offsets[:, None] ** 2 + offsets**2) / cell**2)
    kernel /= kernel.sum()
    counts = np.zeros((batch, height // cell, width // cell, channels, 9))
    for i, j in np.ndindex(height, width):
        block = x[:, i : i + 3, j : j + 3]  # [B, 3, 3, C]
        gx = np.einsum("bijc,ij->bc", block, sobel)
        gy = np.einsum("bijc,ij->bc", block, sobel.T)
        gx, gy = (np.where(np.abs(g) < 1e-9, 0, g) for g in (gx, gy))  # rounding of the mean
        bins = np.floor(np.arctan2(gx, gy) / np.pi * 9).astype(int) % 9
        votes = np.hypot(gx, gy) * kernel[i % (2 * cell), j % (2 * cell)]
        for b, c in np.ndindex(batch, channels):
            counts[b, i // cell, j // cell, c, bins[b, c]] += votes[b, c]
    return counts / np.maximum(np.linalg.norm(counts, axis=-1, keepdims=True), 1e-12)


@pytest.mark.parametrize(
    ("shape", "patch", "cell"),
    [((24, 16, 3), (8, 8), 4), ((12, 18, 1), (4, 6), 2), ((9, 9, 3), (3, 3), 3)],
    ids=str,
)
def test_hog_is_that_of_maskfeat(shape, patch, cell):
    """Of normalized images, though it is computed from bytes; also where the Gaussian windows do
    not divide the image. The order of values is (channel, bin, cell row, cell column).
    """
    images = images_of(shape)
    cells = hog_by_definition(inputs_of(images), cell)
    expected = []
    for row, column in np.ndindex(shape[0] // patch[0], shape[1] // patch[1]):
        rows, columns = patch[0] // cell, patch[1] // cell
        block = cells[:, rows * row :, columns * column :][:, :rows, :columns]
        expected.append(block.transpose(0, 3, 4, 1, 2).reshape(len(images), -1))
    found = made(f"hog(cell={cell})", images, patch)
    np.testing.assert_allclose(found, np.stack(expected, axis=1), atol=1e-5)


def test_hog_of_flat_images_is_zero_and_has_108_values_as_in_the_paper():
    flat = np.full((1, 32, 32, 3), 200, np.uint8)
    found = made("hog", flat, (16, 16))
    assert found.shape == (1, 4, 108) and not found.any()


def test_glyphs_follow_the_edges():
    """Of a picture of stripes in some direction: those of the brightest glyph have the same."""
    y, x = np.mgrid[:32, :32]
    for angle in (0.3, 1.2, 2.0, 2.9):
        wave = np.sin(0.9 * (x * np.cos(angle) + y * np.sin(angle)))
        images = np.round(127 + 100 * wave).astype(np.uint8)[None, ..., None]
        histogram = hog_by_definition(inputs_of(images), 8)[0, 1, 1, 0]
        glyph = hog.glyphs(8)[histogram.argmax()]
        rows, columns = np.mgrid[:8, :8] - 3.5
        tensor = np.array([[1, 1], [1, 1]]) * 0.0
        for a, b in itertools.product(range(2), repeat=2):
            tensor[a, b] = (glyph * (columns, rows)[a] * (columns, rows)[b]).sum()
        along = np.linalg.eigh(tensor)[1][:, 1]  # the direction of the line
        assert abs(along @ [np.cos(angle), np.sin(angle)]) < np.sin(np.deg2rad(15))


@pytest.fixture(scope="module")
def basis():
    """(images, patch, constants of eight components)."""
    images, patch = images_of((16, 12, 3), count=40, seed=1), (4, 4)
    return (
        images,
        patch,
        build("pca(keep=8)", "targets", Target).constants({"image": images}, patch),
    )


def test_principal_components_are_those_of_the_patches(basis):
    images, patch, constants = basis
    pixels = patchify(images / 255.0, patch).reshape(-1, 48)
    _, deviations, vectors = np.linalg.svd(pixels - pixels.mean(axis=0), full_matrices=False)
    signs = np.sign([row[np.abs(row).argmax()] for row in vectors])
    np.testing.assert_allclose(constants["mean"], pixels.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(constants["basis"], (vectors * signs[:, None])[:8].T, atol=1e-9)
    scale = np.sqrt((deviations**2).sum() / len(pixels) / 48)
    np.testing.assert_allclose(constants["scale"], [scale], atol=1e-12)
    test = images_of((16, 12, 3), seed=2)
    found = made("pca(keep=8)", test, patch, take=lambda x: x[:, 3:5], constants=constants)
    rows = patchify(test / 255.0, patch)[:, 3:5]
    expected = (rows - pixels.mean(axis=0)) @ constants["basis"] / scale
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_all_components_restore_the_pixels_and_have_their_error(basis):
    images, patch, _ = basis
    target, context = pca.make(keep=48), context_of(patch, 3)
    constants = target.constants({"image": images}, patch)
    values = made("pca(keep=48)", images, patch, constants=constants)
    shown = target.to_pixels(constants, values, images, context)
    pixels = patchify(inputs_of(images), patch)
    np.testing.assert_allclose(shown, pixels, atol=1e-4)
    errors = (
        np.square(patchify(images / 255.0, patch) - constants["mean"]) / constants["scale"] ** 2
    )
    np.testing.assert_allclose(np.square(values).mean(), errors.mean(), rtol=1e-5)


@pytest.mark.parametrize(
    "text", ["lowpass", "lowpass(normalize=False)", "hog(cell=4)", "pca(keep=8)"]
)
def test_only_the_patches_in_the_loss_are_returned(text, basis):
    images, patch, constants = basis
    constants = constants if text.startswith("pca") else {}
    whole = made(text, images[:2], patch, constants=constants)
    order = jnp.asarray([[5, 0, 7], [2, 1, 11]])
    gather = lambda x: jnp.take_along_axis(x, order[:, :, None], axis=1)
    part = made(text, images[:2], patch, gather, constants=constants)
    np.testing.assert_allclose(part, np.take_along_axis(whole, order[:, :, None], 1), atol=1e-6)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Perfect(mae.MaskedAutoencoding):
    """A method that predicts the target of whole images exactly."""

    constants_of: dict

    def reconstruct(self, params, images, mask):
        """[B, L, V]."""
        context = self.target_context(images, lambda patches: patches)
        return self.target.make(self.constants_of, images, context)


@pytest.mark.parametrize("text", ["lowpass(radius=0.2)", "hog(cell=4)", "pca(keep=8)"])
def test_pictures_show_the_target_and_a_prediction_of_it(text, basis):
    images, patch, constants = basis
    constants = constants if text.startswith("pca") else {}
    encoder, sizes = "vit(width=16, depth=1, heads=2, patch=4)", dict(decoder_width=8)
    made_mae = mae.make(encoder=encoder, decoder_heads=2, target=text, **sizes)
    method = Perfect(**vars(made_mae), constants_of=constants)
    extra = {"target": constants}
    draw = jax.jit(lambda: method.draw({}, extra, {"image": jnp.asarray(images[:2])}))
    shown = jax.device_get(draw())
    relative = text.startswith("lowpass")
    (output,) = (name for name in shown if "output" in name and "raw" not in name)
    assert len(shown) == 5 + relative
    np.testing.assert_array_equal(shown[output], shown["target"])
    expected = {
        "lowpass": lambda: lowpass.low_pass(method.normalize(images[:2]), 0.2) * 0.25 + 0.5,
        "hog": lambda: glyph_picture(images[:2]),
        "pca": lambda: projected(images[:2], patch, **constants),
    }[text.partition("(")[0]]()
    pixels = np.clip(np.round(255 * np.asarray(expected)), 0, 255)
    np.testing.assert_allclose(shown["target"], pixels, atol=1)


def projected(images, patch, mean, basis, scale):
    """Images in [0, 1] with only the components of a basis."""
    centered = patchify(images / 255.0, patch) - mean
    return unpatchify(mean + centered @ basis @ basis.T, patch, (4, 3))


def glyph_picture(images):
    """Cells replaced by the brightest of their nine lines, in [0, 1]."""
    cells = hog_by_definition(inputs_of(images), 4)  # [B, rows, columns, C, 9]
    picture = np.einsum("brcdn,nyx->brycxdn", cells, hog.glyphs(4)).max(axis=-1)
    return np.clip(picture, 0, 1).reshape(images.shape)


@pytest.mark.parametrize(
    ("text", "patch", "message"),
    [
        ("hog(cell=0)", (4, 4), "the side of a cell must be at least 1"),
        ("hog(cell=8)", (4, 4), r"cells do not divide patches of 4 x 4 pixels: .* hog\(cell=4\)"),
        ("hog", (4,), r"hog is for images \[H, W, C\], and these have 1 axes"),
        ("pca(keep=0)", (4, 4), "keep at least 1 component"),
        ("pca(keep=96)", (4, 4), "a patch has 48 values: keep at most 48"),
        ("lowpass(radius=0)", (4, 4), "choose cycles per pixel"),
        ("lowpass(radius=40)", (4, 4), "choose cycles per pixel"),
    ],
)
def test_mistakes_are_named(text, patch, message):
    with pytest.raises(UserError, match=message):
        build(text, "targets", Target).width(patch, 3)
