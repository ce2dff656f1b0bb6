"""The predictive methods, relative position, jigsaw puzzles and rotation: that what they ask is
what they say, and the losses against float64 numpy.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from mae_jax.methods import jigsaw, relative_position, rotation
from mae_jax.spec import call
from mae_jax.types import UserError
from tests.helpers.compiled import compiled, noise_like

VIT = "vit(width=16, depth=1, heads=2, patch=4)"
CONV = "convnext(widths=(8, 12), depths=(1, 1), stem=2, kernel=3)"
KEY = jax.random.key(0)
RAW = dict(mean=(0.0,), std=(1 / 255,))  # what the network sees are bytes
HEIGHT, WIDTH, TILE = 28, 32, 8  # cells of 9 x 10 pixels after a border of 0 and 1
SMALL = {
    relative_position: dict(tile=TILE, hidden=12),
    jigsaw: dict(tile=TILE, hidden=6, permutations=5),
    rotation: {},
}
TILED = [relative_position, jigsaw]
METHODS = [*TILED, rotation]
name_of = lambda x: x.__name__.rpartition(".")[2] if hasattr(x, "__name__") else None


@functools.cache
def make(module, **kwargs):
    return module.make(**(dict(encoder=VIT) | SMALL[module] | kwargs))


def images(batch, height=HEIGHT, width=WIDTH, channels=3):
    shape = (batch, height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def cell_of(place):
    """The cells [...] in which tiles [..., 2] begin, and are whole."""
    row, y = np.divmod(np.asarray(place)[..., 0], 9)
    column, x = np.divmod(np.asarray(place)[..., 1] - 1, 10)
    assert y.max() <= 9 - TILE and x.max() <= 10 - TILE
    return 3 * row + column


def assert_even(labels, count):
    """Every label occurs, and as often as any other."""
    counts = np.bincount(labels, minlength=count)
    assert len(counts) == count and scipy.stats.chisquare(counts).pvalue > 1e-3


def test_relative_position_asks_for_the_place_of_the_second_tile():
    method = make(relative_position, colors="keep", **RAW)
    where = np.stack(np.mgrid[:HEIGHT, :WIDTH], axis=-1).astype(np.uint8)
    where = np.broadcast_to(where, (400, HEIGHT, WIDTH, 2))
    pairs, label = compiled(method, "draw")(KEY, where)
    assert pairs.shape == (400, 2, TILE, TILE, 2) and pairs.dtype == jnp.float32
    pairs = np.rint(np.asarray(pairs)).astype(int)
    np.testing.assert_array_equal(
        pairs - pairs[:, :, :1, :1],
        np.broadcast_to(np.stack(np.mgrid[:TILE, :TILE], axis=-1), pairs.shape),
    )
    np.testing.assert_array_equal(cell_of(pairs[:, 0, 0, 0]), 4)
    around = np.array([0, 1, 2, 3, 5, 6, 7, 8])
    np.testing.assert_array_equal(cell_of(pairs[:, 1, 0, 0]), around[np.asarray(label)])
    assert_even(np.asarray(label), 8)
    assert not np.array_equal(label, compiled(method, "draw")(jax.random.key(1), where)[1])


def test_relative_position_hides_colors_as_it_was_told():
    batch, numbers = images(60), dict(mean=(0.3, 0.4, 0.5), std=(0.2, 0.3, 0.4))
    methods = [make(relative_position, colors=c, **numbers) for c in ("keep", "drop", "project")]
    draw = jax.jit(lambda key, batch: [method.draw(key, batch)[0] for method in methods])
    kept, dropped, projected = map(np.asarray, draw(KEY, batch))
    pixels = kept * np.array(numbers["std"]) + numbers["mean"]
    np.testing.assert_allclose(pixels * 255, np.rint(pixels * 255), atol=1e-3)
    axis = np.array([-1.0, 2.0, -1.0])
    flat = pixels - np.outer(pixels @ axis / (axis @ axis), axis).reshape(pixels.shape)
    expected = (flat - numbers["mean"]) / numbers["std"]
    np.testing.assert_allclose(projected, expected, atol=1e-5)
    same = np.abs(dropped - kept).max(axis=(2, 3)) < 1e-5
    np.testing.assert_array_equal(same.sum(axis=-1), 1)
    assert (same.argmax(-1)[:, 0] != same.argmax(-1)[:, 1]).any()
    assert np.abs(np.moveaxis(dropped, -1, 2)[~same]).max() < 0.1


def test_a_puzzle_is_solved_by_its_permutation():
    method, batch = make(jigsaw, permutations=6), images(4)
    shuffled, label = map(np.asarray, compiled(method, "draw")(KEY, batch))
    assert shuffled.shape == (4, 9, TILE, TILE, 3)
    windows = np.lib.stride_tricks.sliding_window_view(batch / 255.0, (TILE, TILE), axis=(1, 2))
    windows = np.moveaxis(windows, 3, -1)  # [4, 21, 25, TILE, TILE, 3], every tile there could be
    axes = dict(axis=(3, 4), keepdims=True)
    windows = (windows - windows.mean(**axes)) / windows.std(**axes)
    for window, tiles, answer in zip(windows, shuffled, label):
        error = np.stack([np.abs(window - tile).max(axis=(2, 3, 4)) for tile in tiles])
        assert error.min(axis=(1, 2)).max() < 1e-3
        place = np.unravel_index(error.reshape(9, -1).argmin(axis=1), error.shape[1:])
        assert tuple(cell_of(np.stack(place, axis=-1)).tolist()) == method.orders[answer]


def test_puzzles_use_all_permutations_and_draw_anew():
    method = make(jigsaw, permutations=5)
    assert len(set(method.orders)) == 5
    draw = jax.jit(lambda key: method.draw(key, np.zeros((400, 24, 24, 1), np.uint8))[1])
    assert_even(np.asarray(draw(KEY)), 5)
    assert not np.array_equal(draw(KEY), draw(jax.random.key(1)))


def test_rotations_are_those_of_numpy():
    batch = images(3, 8, 8)
    turned = jax.jit(rotation.rotations)(batch)
    for index, image in enumerate(batch):
        for turns in range(4):
            np.testing.assert_array_equal(turned[index, turns], np.rot90(image, turns))


def dense(x, layer):
    layer = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), layer)
    return x @ layer["kernel"] + layer["bias"]


def gelu(x):
    return x * scipy.special.ndtr(x)


def questions(module, method, batch):
    """What the network is shown, a list of [B, ...], one for each tile or rotation, and labels."""
    if module is rotation:
        shown = [[np.rot90(image, turns) for image in batch] for turns in range(4)]
        return [(np.stack(each) / 255 - 0.5) / 0.25 for each in shown], None
    shown, label = compiled(method, "draw")(KEY, batch)
    return list(np.asarray(shown).swapaxes(0, 1)), np.asarray(label)


def cross_entropy(logits, label):
    logits = logits - logits.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(label)), label])


@pytest.mark.parametrize(
    "encoder",
    [pytest.param(VIT, id="vit"), pytest.param(CONV, id="conv", marks=pytest.mark.thorough)],
)
@pytest.mark.parametrize("module", METHODS, ids=name_of)
def test_the_loss_is_the_cross_entropy_of_the_head(module, encoder):
    method = make(module, encoder=encoder, pool="mean")
    batch = images(6, 12, 12) if module is rotation else images(6)
    # Biases start at 0: noise shows that they are where they should be.
    params, extra = noise_like(method.init, KEY, {"image": batch}, scale=0.3)
    output = compiled(method, "loss")(params, extra, {"image": batch}, KEY, 0)
    shown, label = questions(module, method, batch)
    encode = compiled(method, "features")
    features = [np.asarray(encode(params, part.astype(np.float32)), np.float64) for part in shown]
    head = params["head"]
    if module is relative_position:
        logits = dense(gelu(dense(np.concatenate(features, axis=1), head["fc1"])), head["fc2"])
    elif module is jigsaw:
        parts = np.concatenate([gelu(dense(part, head["tile"])) for part in features], axis=1)
        logits = dense(gelu(dense(parts, head["fc1"])), head["fc2"])
    else:
        logits = dense(np.concatenate(features), head)
        label = np.repeat(np.arange(4), len(batch))
    assert logits.std(axis=0).min() > 0.01, "the answers do not depend on the questions"
    assert output.loss.dtype == jnp.float32 and output.extra == {}
    np.testing.assert_allclose(output.loss, cross_entropy(logits, label), rtol=1e-5)
    np.testing.assert_allclose(output.metrics["top1"], np.mean(logits.argmax(1) == label))


@pytest.mark.parametrize("module", METHODS, ids=name_of)
def test_heads_have_the_shapes_that_were_asked_for(module):
    method, batch = make(module), {"image": np.zeros((2, 24, 24, 3), np.uint8)}
    params = jax.eval_shape(method.init, KEY, batch)[0]
    shapes = jax.tree.map(lambda leaf: leaf.shape, params["head"])
    assert params.keys() == {"encoder", "head"}
    assert (
        shapes
        == {
            relative_position: {
                "fc1": {"kernel": (32, 12), "bias": (12,)},
                "fc2": {"kernel": (12, 8), "bias": (8,)},
            },
            jigsaw: {
                "tile": {"kernel": (16, 6), "bias": (6,)},
                "fc1": {"kernel": (54, 48), "bias": (48,)},
                "fc2": {"kernel": (48, 5), "bias": (5,)},
            },
            rotation: {"kernel": (16, 4), "bias": (4,)},
        }[module]
    )


@pytest.mark.parametrize("module", METHODS, ids=name_of)
def test_features_are_the_encoders_of_whole_images(module):
    numbers = dict(mean=(0.3, 0.4, 0.5), std=(0.2, 0.3, 0.4))
    method, batch = make(module, **numbers), images(2, 24, 24)
    params, extra = noise_like(method.init, KEY, {"image": batch}, scale=0.2)
    found = compiled(method, "predict", outputs=("features",))(params, extra, {"image": batch})
    seen = ((batch / 255 - numbers["mean"]) / numbers["std"]).astype(np.float32)
    tokens = compiled(method.encoder, "apply")({"params": params["encoder"]}, seen)
    np.testing.assert_allclose(found["features"], np.asarray(tokens)[:, 0], atol=1e-5)


@pytest.mark.parametrize("module", METHODS, ids=name_of)
def test_networks_compute_in_bfloat16_and_losses_do_not(module):
    method, batch = make(module, dtype="bfloat16"), {"image": np.zeros((2, 24, 24, 3), np.uint8)}
    params, extra = jax.eval_shape(method.init, KEY, batch)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    loss = functools.partial(method.loss, step=0)
    program = str(jax.make_jaxpr(loss)(params, extra, batch, KEY))
    kinds = {"relative_position": "bf16[2,8]", "jigsaw": "bf16[2,5]", "rotation": "bf16[8,4]"}
    assert kinds[name_of(module)] in program
    assert jax.eval_shape(loss, params, extra, batch, KEY).loss.dtype == jnp.float32


def test_gray_images_are_learned_from_as_they_are():
    batch = {"image": images(2, channels=1)}
    for module, options in ((relative_position, dict(colors="keep")), (jigsaw, {})):
        method = make(module, **options)
        params, extra = jax.eval_shape(method.init, KEY, batch)
        assert params["encoder"]["embed"]["kernel"].shape == (4 * 4 * 1, 16)
        tiles = jax.eval_shape(method.draw, KEY, batch["image"])[0]
        assert tiles.shape == (2, 2 if module is relative_position else 9, TILE, TILE, 1)
        assert jax.eval_shape(method.loss, params, extra, batch, KEY, 0).loss.shape == ()


@pytest.mark.parametrize("colors", ["drop", "project"])
def test_taking_color_out_of_gray_images_is_refused(colors):
    with pytest.raises(UserError, match="3 channels .* have 1: .*colors=keep"):
        make(relative_position, colors=colors).init(KEY, {"image": images(2, channels=1)})


def test_rotation_refuses_images_that_are_not_square():
    method, batch = make(rotation), {"image": images(2, 12, 16)}
    with pytest.raises(UserError, match=r"12 x 16 are not square.*random_resized_crop\(12\)"):
        method.init(KEY, batch)


@pytest.mark.parametrize("module", TILED, ids=name_of)
def test_tiles_that_do_not_fit_the_images_are_refused(module):
    with pytest.raises(UserError, match="tile=12 does not fit: images of 28 x 32 .* tile is 9"):
        make(module, tile=12).init(KEY, {"image": images(2)})


WRONG = [
    *[(module, dict(pool="max"), "pool 'max' is unknown") for module in METHODS],
    *[(module, dict(dtype="float16"), "dtype 'float16' is unknown") for module in METHODS],
    *[(module, dict(hidden=0), "hidden=0 must be positive") for module in TILED],
    *[(module, dict(tile=tile), f"tile={tile} .* of 4") for module in TILED for tile in (0, 10)],
    *[
        (
            module,
            dict(encoder=VIT[:-1] + ", learned_positions=True)"),
            "leave out learned_positions",
        )
        for module in TILED
    ],
    (
        relative_position,
        dict(colors="gray"),
        "colors 'gray' is unknown: choose drop, project, keep",
    ),
    (jigsaw, dict(permutations=1), "1 permutations of nine tiles: choose 2 to 362880"),
]


@pytest.mark.parametrize("module, options, message", WRONG, ids=str)
def test_values_that_cannot_be_are_refused(module, options, message):
    with pytest.raises(UserError, match=message):
        call("method", module.make, **(dict(encoder=VIT) | SMALL[module] | options))
