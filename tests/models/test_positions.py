"""Positions of encoders and decoders: what is added to tokens, and what is a parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.methods import mae
from mae_jax.models import vit
from mae_jax.ops import masking
from mae_jax.ops.posemb import flat_sincos, sincos
from mae_jax.types import UserError

SHAPE = dict(width=12, depth=1, heads=2, patch=(2, 4, 4))
CLIPS = (2, 4, 8, 12, 3)
GRID = (2, 2, 3)


def embedded(**options):
    """Parameters of a ViT without blocks that count, and the tokens before its first block: those
    of images of zeros, whose embedding is zero. Also of some patches, and their numbers.
    """
    network = vit.make(**SHAPE, **options)
    images = jnp.zeros(CLIPS)
    scores = jax.random.uniform(jax.random.key(1), (2, 12))
    mask = masking.from_scores(scores, 5)

    @jax.jit
    def run(key):
        params = network.init(key, images)["params"]
        first = lambda mask: network.apply(
            {"params": params}, images, mask, fuse=list, depths=[0], method="run"
        )
        return params, first(None).last[0], first(mask).last[0]

    # `last` is after the final norm: switch it off, to see the embedding itself.
    return (*run(jax.random.key(0)), np.asarray(mask.keep))


@pytest.mark.parametrize(
    ("options", "table"),
    [
        (dict(positions="flat"), flat_sincos(GRID, 12)),
        pytest.param(
            dict(spacing=(3.0, 1.0, 0.5)),
            sincos(GRID, 12, (6.0, 4.0, 2.0)),
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            dict(positions="flat", learned_positions=True),
            flat_sincos(GRID, 12),
            marks=pytest.mark.thorough,
        ),
    ],
    ids=["flat", "centimeters", "trained"],
)
def test_patches_get_the_table(options, table):
    params, every, some, keep = embedded(**options, class_tokens=0, final_norm=False)
    np.testing.assert_allclose(every, np.broadcast_to(table, (2, 12, 12)), atol=1e-6)
    np.testing.assert_allclose(some, table[keep], atol=1e-6)
    assert ("positions" in params) == ("learned_positions" in options)


def test_separable_positions_are_the_sum_of_space_and_time():
    params, every, some, keep = embedded(positions="separable", class_tokens=1, final_norm=False)
    time, space = np.asarray(params["positions_time"]), np.asarray(params["positions_space"])
    assert time.shape == (2, 12) and space.shape == (6, 12)
    table = np.array([time[i // 6] + space[i % 6] for i in range(12)])
    first = params["cls_token"][0] + params["positions_class"]
    np.testing.assert_allclose(every[:, 1:], np.broadcast_to(table, (2, 12, 12)), atol=1e-6)
    np.testing.assert_allclose(some[:, 1:], table[keep], atol=1e-6)
    np.testing.assert_allclose(every[:, :1], np.broadcast_to(first, (2, 1, 12)), atol=1e-6)
    assert 0.012 < np.std([*time.ravel(), *space.ravel()]) < 0.03


@pytest.mark.thorough
@pytest.mark.parametrize("decoder", ["self", "cross"])
def test_decoders_have_the_same_kinds(decoder):
    """Their positions enter the prediction: with other ones it differs, also between times."""
    shape = dict(decoder=decoder, decoder_width=12, decoder_depth=1, decoder_heads=2)
    encoder = "vit(width=12, depth=1, heads=2, patch=(2, 4, 4), positions=separable)"
    method = mae.make(encoder=encoder, **shape, decoder_positions="separable", mask="tube")
    images = np.random.default_rng(0).integers(0, 256, CLIPS, np.uint8)

    @jax.jit
    def run(key):
        params, _ = method.init(key, {"image": images})
        loss = lambda p: method.loss(p, {}, {"image": images}, key, 0).loss
        return params, jax.grad(loss)(params)

    params, gradients = run(jax.random.key(0))
    for part in ("encoder", "decoder"):
        for name in ("positions_time", "positions_space"):
            rows = np.abs(gradients[part][name]).max(
                axis=1
            )  # those of visible or predicted patches
            assert (rows > 0).sum() >= (2 if name == "positions_time" else 1), (part, name)
    assert ("positions_class" in params["decoder"]) == (decoder == "self")


def test_networks_with_other_positions_are_other_architectures():
    plain, flat = vit.make("Ti"), vit.make("Ti", positions="flat")
    assert plain.architecture != flat.architecture
    assert plain.architecture == vit.make("Ti", spacing=(1, 1)).architecture


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(positions="sine"), "positions=sine is none of sincos, flat, separable"),
        (dict(positions="flat", spacing=(1, 1, 1)), "spacing is for positions=sincos"),
        (dict(spacing=(1, 1)), "spacing=.1, 1. must be the positive millimeters of a voxel along"),
        (dict(spacing=(1, 0, 1)), "must be the positive millimeters"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(UserError, match=message):
        vit.make(**SHAPE, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(positions="separable"), "images of one axis need sincos or flat"),
        (dict(spacing=(1, 1)), "has 2 numbers for images of 1 axes"),
    ],
)
def test_images_of_another_rank(options, message):
    network = vit.make(**SHAPE | dict(patch=4), **options)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 16, 3)))
