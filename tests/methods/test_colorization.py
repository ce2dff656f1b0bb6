"""Colorization: its loss and its prior against float64 numpy and scikit-image, what the encoder
sees, and its pictures.
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.color import lab2rgb, rgb2lab

from mae_jax.methods import colorization
from mae_jax.ops import lab
from mae_jax.types import UserError
from tests.helpers.compiled import compiled, noise_like

GRAY = "gray (what the encoder sees)"
SMALL = dict(encoder="vit(width=16, depth=1, heads=2, patch=4)", stride=2)


@functools.cache
def make(**options):
    """A small method, the same one for the same options."""
    return colorization.make(**SMALL | options)


def images(channels=3, seed=0):
    """[4, 16, 12, channels] uint8: smooth enough for colors to survive the averaging."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (4, 8, 6, channels)).repeat(2, axis=1).repeat(2, axis=2)
    return np.clip(blocks + rng.integers(-9, 10, (4, 16, 12, channels)), 0, 255).astype(np.uint8)


def started(method, pictures, spread=0.0):
    """Parameters, whose head's output has some spread, and collections."""
    params, _ = noise_like(method.init, jax.random.key(0), {"image": pictures})
    noise = spread * np.random.default_rng(3).normal(size=params["head"]["bias"].shape)
    head = params["head"] | {"bias": noise.astype(np.float32)}
    return params | {"head": head}, given(np.full(261, 1 / 261))


def loss(method, params, extra, pictures):
    return compiled(method, "loss")(params, extra, {"image": pictures}, jax.random.key(1), 0)


def logits(method, params, pictures):
    """[B, H / stride, W / stride, Q] float64, as a map."""
    found = jax.jit(lambda p, x: method.logits(p, method.to_lab(x)))(params, pictures)
    batch, height, width, _ = pictures.shape
    side = method.encoder.patch
    rows, columns, per = height // side, width // side, side // method.stride
    found = np.asarray(found, np.float64).reshape(batch, rows, columns, per, per, -1)
    return found.swapaxes(2, 3).reshape(batch, rows * per, columns * per, -1)


def averaged(pictures, stride):
    """ab [B, H / stride, W / stride, 2] float64."""
    ab = rgb2lab(pictures / 255.0)[..., 1:]
    batch, height, width, _ = ab.shape
    places = np.empty((batch, height // stride, width // stride, 2))
    for row, column in np.ndindex(places.shape[1:3]):
        top, left = row * stride, column * stride
        square = ab[:, top : top + stride, left : left + stride]
        places[:, row, column] = square.mean(axis=(1, 2))
    return places


def encoded(places):
    """Dense targets [B, h, w, Q] float64 and the nearest bins [B, h, w]."""
    distance = np.linalg.norm(places[..., None, :] - lab.bins().astype(np.float64), axis=-1)
    rank = distance.argsort(axis=-1, kind="stable").argsort(axis=-1)
    target = np.where(rank < 5, np.exp(-(distance**2) / 50), 0)
    return target / target.sum(axis=-1, keepdims=True), distance.argmin(axis=-1)


@pytest.mark.parametrize(
    ("stride", "rebalance"),
    [
        (1, 0.5),
        (2, 0.5),
        (4, 0.1),
        pytest.param(4, 0.5, marks=pytest.mark.thorough),
        pytest.param(4, 1.0, marks=pytest.mark.thorough),
    ],
)
def test_the_loss_is_the_papers(stride, rebalance):
    method = make(stride=stride, rebalance=rebalance)
    pictures = images()
    params, _ = started(method, pictures, spread=1.0)
    prior = np.random.default_rng(5).dirichlet(np.full(261, 0.2))
    output = loss(method, params, given(prior), pictures)
    target, nearest = encoded(averaged(pictures, stride))
    scores = logits(method, params, pictures)
    shares = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    weights = 1 / ((1 - rebalance) * prior + rebalance / 261)
    weights /= (prior * weights).sum()
    expected = np.mean(weights[nearest] * -(target * np.log(shares)).sum(axis=-1))
    assert output.loss.dtype == jnp.float32 and output.loss.shape == ()
    np.testing.assert_allclose(output.loss, expected, rtol=1e-5)
    hits = (scores.argmax(axis=-1) == nearest).mean()
    np.testing.assert_allclose(output.metrics["top1"], hits, atol=1e-6)


def test_top1_counts_the_places_that_are_right():
    """A head that says the same of every place is right where that is the color."""
    method = make()
    pictures = images()
    pictures[:, :8, :, :] = 128  # the upper half gray
    params, extra = started(method, pictures)
    gray = int(np.flatnonzero((lab.bins() == 0).all(axis=1))[0])
    head = jax.tree.map(np.zeros_like, params["head"])
    head["bias"].reshape(-1, 261)[:, gray] = 1
    found = loss(method, params | {"head": head}, extra, pictures).metrics["top1"]
    nearest = encoded(averaged(pictures, 2))[1]
    assert 0.5 <= (nearest == gray).mean() < 0.7
    np.testing.assert_allclose(found, (nearest == gray).mean(), atol=1e-6)


def given(prior):
    """Collections with this prior."""
    return {"prior": np.float32(prior), "seen": np.zeros(261, np.float32)}


def test_the_prior_follows_the_batches():
    method = make(prior_decay=0.9)
    batches = [images(seed=1), images(seed=2)]
    params, extra = jax.jit(method.init)(jax.random.key(0), {"image": batches[0]})
    expected = np.full(261, 1 / 261)
    np.testing.assert_allclose(extra["prior"], expected, rtol=1e-6)
    for step, pictures in enumerate(batches):
        for part in pictures[:2], pictures[2:]:
            extra = loss(method, params, extra, part).extra
            np.testing.assert_allclose(extra["prior"], expected, atol=1e-7)
        extra = compiled(method, "after_update")(params, extra, step)
        seen = encoded(averaged(pictures, 2))[0].mean(axis=(0, 1, 2))
        expected = 0.9 * expected + 0.1 * seen
        np.testing.assert_allclose(extra["prior"], expected, atol=1e-7)
    assert expected.max() > 1.3 / 261 and extra["prior"].dtype == jnp.float32


def test_the_weights_do_not_depend_on_the_batch():
    """The loss of two images is the mean of the losses of each."""
    method = make()
    pictures = images()
    params, _ = started(method, pictures, spread=1.0)
    prior = np.random.default_rng(5).dirichlet(np.full(261, 0.2)).astype(np.float32)
    value = lambda rows: float(loss(method, params, given(prior), rows).loss)
    whole, parts = value(pictures), [value(pictures[i : i + 1]) for i in range(4)]
    assert np.std(parts) > 1e-3
    assert whole == pytest.approx(np.mean(parts), rel=1e-5)


def same_lightness():
    """Two images [1, 4, 4, 3] uint8 of other colors, whose L agrees to 1e-4 in every pixel."""
    colors = np.random.default_rng(0).integers(0, 256, (100_000, 3)).astype(np.uint8)
    values = rgb2lab(colors / 255.0)
    order = values[:, 0].argsort()
    values, colors = values[order], colors[order]
    close = np.diff(values[:, 0]) < 1e-4
    apart = np.linalg.norm(np.diff(values[:, 1:], axis=0), axis=1) > 40
    found = np.flatnonzero(close & apart)
    found = found[:: len(found) // 16][:16]
    return colors[found].reshape(1, 4, 4, 3), colors[found + 1].reshape(1, 4, 4, 3)


def test_the_encoder_sees_no_color():
    method = make()
    one, two = same_lightness()
    assert np.abs(one.astype(int) - two).max() > 50
    params, extra = started(method, one)
    features = lambda x: compiled(method, "predict", outputs=("features",))(
        params, extra, {"image": x}
    )["features"]
    np.testing.assert_allclose(features(one), features(two), atol=1e-4)
    assert np.abs(features(one) - features(255 - one)).max() > 0.01
    assert params["encoder"]["embed"]["kernel"].shape == (4 * 4 * 1, 16)


def test_the_encoder_sees_the_lightness_in_its_range():
    method = make()
    ends = np.array([[0, 0, 0], [255, 255, 255], [12, 200, 70]], np.uint8).reshape(1, 1, 3, 3)
    seen = jax.jit(lambda x: method.lightness(method.to_lab(x)))(ends)
    middle = (rgb2lab(ends / 255.0)[0, 0, 2, 0] - 50) / 25
    np.testing.assert_allclose(seen, np.reshape([-2, 2, middle], (1, 1, 3, 1)), atol=1e-5)


def test_gray_images_are_gray_values_of_srgb():
    method = make()
    gray = images(channels=1)
    params, extra = started(method, gray)
    features = lambda x: compiled(method, "predict", outputs=("features",))(
        params, extra, {"image": x}
    )["features"]
    np.testing.assert_array_equal(features(gray), features(gray.repeat(3, axis=-1)))


def doubled(values, axis):
    """Twice as long along an axis: linear between the middles of the old places, flat outside."""
    size = values.shape[axis]
    middles = (np.arange(2 * size) + 0.5) / 2 - 0.5
    between = lambda line: np.interp(middles, np.arange(size), line)
    return np.apply_along_axis(between, axis, values)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures(channels):
    method = make()
    pictures = images(channels)
    params, extra = started(method, pictures, spread=3.0)
    shown = jax.jit(method.pictures())(params, extra, {"image": pictures})
    shown = {name: np.asarray(picture) for name, picture in shown.items()}
    assert set(shown) == {"original", GRAY, "colorized"}
    assert {(p.shape, p.dtype) for p in shown.values()} == {((4, 16, 12, 3), np.dtype(np.uint8))}
    color = pictures if channels == 3 else pictures.repeat(3, axis=-1)
    np.testing.assert_array_equal(shown["original"], color)
    light = rgb2lab(color / 255.0)[..., :1]
    gray = lab2rgb(np.concatenate([light, np.zeros((4, 16, 12, 2))], axis=-1)) * 255
    np.testing.assert_allclose(shown[GRAY], gray, atol=0.51)
    # The annealed means, scaled up row by row and column by column between the places' centers.
    odds = np.exp(logits(method, params, pictures) / 0.38)
    ab = odds @ lab.bins().astype(np.float64) / odds.sum(axis=-1, keepdims=True)
    ab = doubled(doubled(ab, 1), 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of colors out of the gamut
        expected = lab2rgb(np.concatenate([light, ab], axis=-1)) * 255
    np.testing.assert_allclose(shown["colorized"], expected, atol=0.52)
    assert np.abs(shown["colorized"].astype(int) - shown[GRAY]).max() > 20


def test_bfloat16_keeps_the_loss_in_float32():
    pictures = images()
    values = []
    for method in (make(), make(dtype="bfloat16")):
        params, extra = started(method, pictures)
        output = loss(method, params, extra, pictures)
        assert output.loss.dtype == output.extra["prior"].dtype == jnp.float32
        values.append(float(output.loss))
    assert values[0] != values[1] and values[0] == pytest.approx(values[1], rel=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(stride=3), "stride=3 does not divide the encoder's patch, 4, one number of pix"),
        (dict(encoder="vit(Ti, patch=(4, 8))"), r"the encoder's patch, \(4, 8\), one number"),
        (dict(stride=0), "stride=0 does not divide"),
        (dict(stride=8), "stride=8 does not divide"),
        (dict(rebalance=0.0), r"rebalance=0.0 must be in \(0, 1\]"),
        (dict(rebalance=1.1), "rebalance=1.1"),
        (dict(prior_decay=1.0), r"prior_decay=1.0 in \[0, 1\)"),
        (dict(prior_decay=-0.1), "prior_decay=-0.1"),
        (dict(pool="max"), "pool 'max' is unknown: choose cls, mean"),
        (dict(dtype="float16"), "dtype 'float16' is unknown"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(UserError, match=message) as raised:
        colorization.make(**SMALL | options)
    assert "\n" not in str(raised.value)


def test_channels_that_have_no_color():
    method = make()
    params, extra = started(method, images())
    with pytest.raises(UserError, match="cannot learn colors from images of 1 channels"):
        loss(method, params, extra, images(channels=1))
    with pytest.raises(UserError, match="images of 1 or 3 channels, these have 2"):
        method.predict(params, extra, {"image": images(channels=2)}, outputs=("features",))


@pytest.mark.parametrize("channels", [1, 3])
def test_kernels_of_color_are_loaded_as_kernels_of_lightness(channels):
    """Whatever the images here have."""
    method = make()
    kernel = np.random.default_rng(0).normal(size=(4 * 4 * 3, 16)).astype(np.float32)
    adapt = method.adapt((16, 12, channels), (16, 12, 3))
    expected = kernel.reshape(16, 3, 16).sum(axis=1)
    np.testing.assert_allclose(adapt("embed/kernel", kernel), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(adapt("embed/kernel", expected), expected)
