"""FCMAE and context encoders: what the encoder may see, and what counts in the loss."""

import functools

import jax
import numpy as np
import pytest

from mae_jax.methods import context_encoder, fcmae
from mae_jax.types import UserError
from tests.helpers.compiled import compiled, noise_like

CONV = "convnext(widths=(8, 16), depths=(1, 1), stem=2, kernel=3)"
SMALL = dict(encoder=CONV, decoder_width=8)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 16, 12, 3)).astype(np.uint8)


RANKS = {"signal": (32, 1), "volume": (8, 4, 8, 1)}


@functools.cache
def make(holes=False, **options):
    return (context_encoder if holes else fcmae).make(**(SMALL | options))


def prepared(images, **options):
    """A method, its parameters, network inputs, and a mask."""
    method = make(**options)
    params, _ = noise_like(method.init, jax.random.key(0), {"image": images}, scale=0.2)
    mask = compiled(method, "draw_mask")(jax.random.key(1), images)
    return method, params, compiled(method, "normalize")(images), mask


def masked_pixels(method, mask, space=(16, 12)):
    """[B, *space, 1] bool."""
    masked = np.asarray(mask.mask).reshape(2, *(side // method.unit for side in space))
    for axis in range(1, masked.ndim):
        masked = masked.repeat(method.unit, axis=axis)
    return masked[..., None]


THOROUGH = pytest.mark.thorough
VARIANTS = [
    dict(),
    pytest.param(dict(skips=False), marks=THOROUGH),
    dict(encoder="vit(width=16, depth=1, heads=2, patch=4)", skips=False),
    pytest.param(dict(holes=True, skips=True, target="pixels(normalize=True)"), marks=THOROUGH),
    pytest.param(dict(holes=True, unit=1), marks=THOROUGH),
    dict(holes=True, skips=True, unit=2, loss="l1", target="pixels(normalize=True)"),
]


@pytest.mark.parametrize(
    "options", [*VARIANTS, *(pytest.param(rank, marks=THOROUGH) for rank in RANKS)], ids=str
)
def test_masked_pixels_do_not_reach_the_prediction(images, options):
    if isinstance(options, str):
        images = np.random.default_rng(0).integers(0, 256, (2, *RANKS[options])).astype(np.uint8)
        options = {}
    method, params, _, mask = prepared(images, **options)
    masked = masked_pixels(method, mask, images.shape[1:-1])
    predict = lambda x: compiled(method, "reconstruct")(params, x, mask)
    noise = np.random.default_rng(2).integers(0, 256, images.shape).astype(np.uint8)
    np.testing.assert_array_equal(predict(np.where(masked, noise, images)), predict(images))
    assert not np.array_equal(predict(np.where(masked, images, noise)), predict(images))


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_the_loss_is_the_error_of_the_masked_pixels(images, options):
    """Derived in float64 from the prediction as an image."""
    method, params, x, mask = prepared(images, **options)
    given, side = compiled(method, "reconstruct")(params, images, mask), method.unit
    given = given.reshape(2, 16 // side, 12 // side, side, side, 3)  # rows and columns of patches
    given = given.swapaxes(2, 3).reshape(x.shape)
    predicted, target = (np.asarray(a, np.float64) for a in (given, x))
    masked, unit = masked_pixels(method, mask), method.unit
    if method.target.normalize:
        for place in np.ndindex(2, 16 // unit, 12 // unit):
            rows, columns = (slice(i * unit, i * unit + unit) for i in place[1:])
            patch = target[place[0], rows, columns]
            scaled = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
            target[place[0], rows, columns] = scaled
    difference = (predicted - target)[np.broadcast_to(masked, x.shape)]
    expected = np.abs(difference).mean() if method.loss_kind == "l1" else (difference**2).mean()
    key = jax.random.key(1)  # that of the mask
    loss = compiled(method, "loss")(params, {}, {"image": images}, key, 0).loss
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_finer_maps_reach_the_decoder(images):
    method, params, x, mask = prepared(images)
    loss = lambda p: method.loss(p, {}, {"image": images}, jax.random.key(1), 0).loss
    gradient = jax.jit(jax.grad(loss))(params)
    assert {"mask_token_0", "mask_token_1"} <= set(params)
    assert all(np.any(leaf) for name, leaf in gradient.items() if name.startswith("mask_token"))
    assert "mask_token_1" not in prepared(images, skips=False)[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(holes=True, unit=-1), "unit=-1: give a side in pixels, or 0"),
        (
            dict(holes=True, unit=1, target="pixels(normalize=True)"),
            "unit=1 leaves nothing to normalize",
        ),
        (dict(encoder="vit(Ti, patch=4)"), "skips need the maps of a convolutional encoder"),
        (dict(encoder="vit(Ti, patch=14)", skips=False), "14, a power of two"),
        (dict(mask_ratio=0.0), "mask_ratio 0 masks nothing to learn from"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(UserError, match=message):
        make(**options)
