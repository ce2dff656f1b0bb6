"""The convolutional encoder: what it sees, and what it must not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.models import convnext
from mae_jax.ops import masking
from mae_jax.types import UserError
from tests.helpers.compiled import compiled


@pytest.fixture(scope="module")
def encoder():
    """A small encoder, its parameters far from where they start, and images [2, 16, 12, 3]."""
    network = convnext.make(widths=(8, 16), depths=(1, 2), stem=2, kernel=5)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 16, 12, 3)).astype(np.float32)
    variables = compiled(network, "init")(jax.random.key(1), images)
    moved = jax.tree.map(lambda x: np.float32(x + 0.3 * rng.normal(size=x.shape)), variables)
    return network, moved, images


def maps_of(network, variables, images, mask=None):
    """The tokens, and the map of each stage, of which the last is after the norm."""
    stages, last, _ = run(network)(variables, images, mask)
    return encode(network)(variables, images, mask), [*stages[:-1], last]


@functools.cache
def encode(network):
    return jax.jit(network.apply)


@functools.cache
def run(network):
    return jax.jit(functools.partial(network.apply, method="run"))


@pytest.fixture(scope="module")
def mask():
    return masking.from_scores(jax.random.uniform(jax.random.key(3), (2, 12)), 6)


def as_pixels(mask, side):
    """[B, H, W, 1] bool: True = hidden."""
    return mask.mask.reshape(2, 4, 3).repeat(side, axis=1).repeat(side, axis=2)[..., None]


def test_tokens_are_the_mean_and_the_sites_in_image_order(encoder):
    network, variables, images = encoder
    tokens, (*_, last) = maps_of(network, variables, images)
    assert tokens.shape == (2, 1 + 4 * 3, 16)
    np.testing.assert_allclose(tokens[:, 1:], last.reshape(2, 12, 16), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(tokens[:, 0], last.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)


def test_a_layer_is_an_encoder_that_ends_there(encoder):
    """With the norm that follows: of the next downsampling, or the last."""
    network, variables, images = encoder
    tokens = functools.partial(network.apply, layers=(0, 1, 2), method="layer_tokens")
    found, params = jax.jit(tokens)(variables, images), variables["params"]
    late = {"block_2"}, {"block_1", "block_2", "down_1"}
    second, first = ({k: v for k, v in params.items() if k not in names} for names in late)
    first["norm"] = params["down_1"]["norm"]
    shorter = functools.partial(convnext.make, stem=2, kernel=5)
    for depth, (encode, rest) in enumerate(
        (
            (shorter(widths=(8,), depths=(1,)).apply, first),
            (shorter(widths=(8, 16), depths=(1, 1)).apply, second),
            (network.apply, params),
        )
    ):
        expected = jax.jit(encode)({"params": rest}, images)
        np.testing.assert_allclose(found[depth], expected, rtol=1e-5, atol=1e-5)
    assert [x.shape for x in found] == [(2, 49, 8), (2, 13, 16), (2, 13, 16)]
    assert [network.layer_width(layer) for layer in range(network.layers)] == [8, 16, 16]
    assert np.abs(found[1] - found[2]).max() > 0.1


@pytest.mark.parametrize("noise", ["normal", "huge", "nan"])
def test_nothing_leaks_out_of_hidden_pixels(encoder, mask, noise):
    network, variables, images = encoder
    tokens = lambda x: encode(network)(variables, x, mask)
    fill = np.float32({"normal": 1.0, "huge": 1e30, "nan": np.nan}[noise])
    others = fill * np.random.default_rng(4).normal(size=images.shape).astype(np.float32)
    changed = np.where(as_pixels(mask, 4), others, images)
    assert not np.array_equal(changed, images)
    np.testing.assert_array_equal(tokens(changed), tokens(images))
    seen = np.where(as_pixels(mask, 4), images, images + np.float32(0.1))
    assert not np.array_equal(tokens(seen), tokens(images))


def test_visible_tokens_stand_in_the_order_of_the_mask(encoder, mask):
    network, variables, images = encoder
    tokens, (*_, last) = maps_of(network, variables, images, mask)
    last = last.reshape(2, 12, 16)
    for row in range(2):
        kept = last[row, mask.keep[row]]
        np.testing.assert_allclose(tokens[row, 1:], kept, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(last)[np.asarray(mask.mask)], 0)
    np.testing.assert_allclose(tokens[:, 0], tokens[:, 1:].mean(axis=1), rtol=1e-5, atol=1e-6)


def test_every_map_is_zero_where_it_is_hidden(encoder, mask):
    network, variables, images = encoder
    _, stages = maps_of(network, variables, images, mask)
    assert [x.shape for x in stages] == [(2, 8, 6, 8), (2, 4, 3, 16)]
    for x in stages:
        hidden = np.broadcast_to(as_pixels(mask, x.shape[1] // 4), x.shape)
        assert not np.asarray(x)[hidden].any() and np.asarray(x)[~hidden].all()


def test_public_maps_are_raw(encoder):
    """As those of a ViT: the norm is of the tokens."""
    network, variables, images = encoder
    maps = jax.jit(functools.partial(network.apply, method="maps"))(variables, images)
    tokens = np.asarray(encode(network)(variables, images, None))
    last = np.asarray(maps[-1], np.float64)
    last = (last - last.mean(-1, keepdims=True)) / np.sqrt(last.var(-1, keepdims=True) + 1e-6)
    norm = variables["params"]["norm"]
    last = (last * norm["scale"] + norm["bias"]).reshape(2, 12, 16)
    np.testing.assert_allclose(tokens[:, 1:], last, rtol=1e-4, atol=1e-4)


def test_the_mask_does_not_dilute_statistics():
    """What is seen of an image of which a half is hidden is normalized as if it were all."""
    x = np.random.default_rng(0).normal(size=(1, 2, 4, 3)).astype(np.float32)
    seen = np.zeros((1, 2, 4, 1), bool)
    seen[:, :, :2] = True
    norm, variables = convnext.GRN(), {"params": {"scale": np.ones(3), "bias": np.zeros(3)}}
    masked, alone = norm.apply(variables, x, seen), norm.apply(variables, x[:, :, :2], None)
    np.testing.assert_array_equal(masked[:, :, :2], alone)


def test_response_normalization_is_the_papers():
    """Algorithm 1 of arXiv 2301.00808, in float64."""
    rng = np.random.default_rng(0)
    x, scale, bias = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=5), rng.normal(size=5)
    norm = np.sqrt((x**2).sum(axis=(1, 2), keepdims=True))
    expected = scale * x * (norm / (norm.mean(axis=3, keepdims=True) + 1e-6)) + bias + x
    variables = {"params": {"scale": scale, "bias": bias}}
    found = convnext.GRN().apply(variables, x.astype(np.float32), None)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_gradients_are_finite_where_a_channel_is_silent():
    norm = convnext.GRN()
    variables = {"params": {"scale": np.ones(3), "bias": np.zeros(3)}}
    total = lambda x: norm.apply(variables, x, None).sum()
    assert np.isfinite(jax.grad(total)(jnp.zeros((1, 2, 2, 3)))).all()


@pytest.mark.thorough
def test_named_sizes_have_the_parameters_of_the_paper():
    """Those of ConvNeXt V2 (arXiv 2301.00808, table 11), without their classifier of 1,000."""
    for size, millions in {"A": 3.7, "T": 28.6, "B": 88.7}.items():
        network = convnext.make(size)
        shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
        count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        classifier = network.width * 1000 + 1000
        assert round((count + classifier) / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(size="X"), "convnext size 'X' is unknown: choose A, B, F, H, L, N, P, T"),
        (dict(), "convnext needs a size"),
        (dict(widths=(8,), depths=(1, 1)), "one of each for every stage"),
        (dict(widths=8, depths=1), r"widths=8 must be positive whole numbers.* \(48,\)"),
        (dict(widths=(), depths=()), r"widths=\(\) must be positive whole numbers"),
        (dict(widths=(8.5,), depths=(1,)), r"widths=\(8.5,\) must be positive whole numbers"),
        (dict(size="T", kernel=4), "kernel=4 odd"),
        (dict(size="T", drop_path=1.0), r"drop_path=1.0 is outside \[0, 1\)"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        convnext.make(**arguments)
