"""Codes of a tokenizer as targets, against float64 numpy, and how a tokenizer is loaded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from mae_jax import weights
from mae_jax.methods import mae, make_method
from mae_jax.ops.patches import patchify
from mae_jax.ops.pixels import normalize
from mae_jax.spec import build
from mae_jax.targets import TargetContext
from mae_jax.types import Skips, TrainState, UserError
from mae_jax.weights.init_from import InitFrom, Row
from mae_jax.weights.model import Model
from tests.ops.test_codebook import nearest_by_loops
from tests.weights import models

CONV = "convnext(widths=(4,), depths=(1,), stem=4, kernel=3)"
SIZES = "codes=6, code_width=3, decoder_width=4"
TARGET = f"vq({CONV!r}, {SIZES})"
STUDENT = dict(encoder="vit(width=8, depth=1, heads=1, patch=4)", loss="cross_entropy")
STUDENT |= dict(decoder_width=8, decoder_depth=1, decoder_heads=1, mean=(0.4,), std=(0.3,))
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def computed():
    """All that one compiled function returns of targets with the method's and other statistics."""
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3)).astype(np.uint8)
    masked = np.array([[5, 0, 3], [2, 1, 4]])[:, :, None]
    context = TargetContext(
        patch=(4, 4),
        take=lambda x: jnp.take_along_axis(x, masked, axis=1),
        normalize=lambda x, pixels=1: normalize(x, (0.4,), (0.3,), pixels=pixels),
    )
    targets = {
        (0.4, 0.3): build(TARGET, "targets"),
        (0.5, 0.2): build(f"{TARGET[:-1]}, mean=(0.5,), std=(0.2,))", "targets"),
    }
    network = targets[0.4, 0.3].tokenizer
    logits = np.random.default_rng(1).normal(size=(2, 6, 6)).astype(np.float32)

    @jax.jit
    def run():
        constants, results = targets[0.4, 0.3].initial(images, (4, 4)), {}
        constants["tokenizer"]["codes"] = 0.3 * constants["tokenizer"]["codes"]
        weights = {"params": {k: v for k, v in constants["tokenizer"].items() if k != "codes"}}
        apply = lambda *args, method: network.apply(weights, *args, method=method)
        for statistics, target in targets.items():
            values = target.make(constants, images, context)
            inputs = normalize(images, *((x,) for x in statistics))
            best = constants["tokenizer"]["codes"][logits.argmax(axis=2)]
            results[str(statistics)] = dict(
                codes=values,
                errors=target.errors(logits[:, :3], values, "cross_entropy"),
                metrics=target.metrics(values),
                vectors=apply(inputs, method="encode"),
                decoded=apply(best, (2, 3), method="decode"),
                drawn=[
                    target.to_pixels(constants, x, images, context)
                    for x in (logits, logits.argmax(axis=2))
                ],
            )
        return constants, results

    constants, results = jax.device_get(run())
    return constants, results, logits, masked[:, :, 0]


def test_targets_are_the_nearest_codes_and_the_loss_their_cross_entropy(computed):
    constants, results, logits, masked = computed
    for found in results.values():
        index = nearest_by_loops(found["vectors"], constants["tokenizer"]["codes"]).reshape(2, 6)
        assert len(np.unique(index)) > 1
        codes = np.take_along_axis(index, masked, axis=1)
        np.testing.assert_array_equal(found["codes"], codes)
        scores = np.exp(logits[:, :3].astype(np.float64))
        probabilities = scores / scores.sum(axis=2, keepdims=True)
        expected = -np.log(np.take_along_axis(probabilities, codes[:, :, None], axis=2))[:, :, 0]
        np.testing.assert_allclose(found["errors"], expected, rtol=1e-5)
        used = len(np.unique(codes)) / 6
        np.testing.assert_allclose(found["metrics"]["codes_used"], used, rtol=1e-6)


def test_pictures_decode_the_most_probable_codes(computed):
    """And the codes themselves, for the row of the target."""
    _, results, _, _ = computed
    for statistics, found in results.items():
        mean, std = eval(statistics)
        pixels = (found["decoded"] * std + mean - 0.4) / 0.3
        for drawn in found["drawn"]:
            np.testing.assert_allclose(drawn, patchify(pixels, (4, 4)), atol=1e-4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tokenizer, and weights of a masked autoencoder; the tokenizer's parameters and codes."""
    folder = tmp_path_factory.mktemp("weights")
    args = dict(encoder=CONV, codes=6, code_width=3, decoder_width=4, mean=(0.4,), std=(0.3,))
    method = make_method(name="vqvae", args=args)
    batch = {"image": jax.ShapeDtypeStruct((1, 8, 12, 3), np.uint8)}
    shapes = jax.eval_shape(method.init, KEY, batch)
    rng = np.random.default_rng(2)
    draw = lambda tree: {
        path: rng.normal(size=leaf.shape).astype(np.float32)
        for path, leaf in traverse_util.flatten_dict(tree, sep="/").items()
    }
    params, extra = draw(shapes[0]), draw(shapes[1])
    weights.write_run(Model(params, "vqvae", args, (8, 12, 3), extra), folder / "tokenizer")
    weights.write_run(models.mae(depth=1, image=(16, 16, 3), patch=4), folder / "mae")
    return folder, params | {"codes": extra["codebook/codes"]}


def loaded(folder, target=TARGET):
    """The tokenizer of a method, as loaded from a folder: path -> array."""
    args = {**STUDENT, "target": target}
    method = mae.make(**args)
    batch = {"image": jax.ShapeDtypeStruct((1, 8, 12, 3), np.uint8)}
    shapes = jax.eval_shape(method.init, KEY, batch)
    params, extra = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    zero = jnp.int32(0)
    state = TrainState(zero, params, (), extra, Skips(zero, zero))
    (part,) = set(method.loads()) - {"params/encoder"}
    row = Row("init_from.tokenizer", str(folder), part)
    made = InitFrom(rows=[row], args=args, method=method, image=(8, 12, 3), inflate="mean")
    found = made.load(state).extra["target"]["tokenizer"]
    return traverse_util.flatten_dict(jax.device_get(found), sep="/")


def test_a_tokenizer_is_loaded_with_its_codes(folders):
    folder, expected = folders
    found = loaded(folder / "tokenizer")
    assert found.keys() == expected.keys() and "project/kernel" in found
    for path, array in found.items():
        np.testing.assert_array_equal(array, expected[path], err_msg=path)


def test_other_weights_are_refused(folders):
    folder, _ = folders
    with pytest.raises(UserError, match=r"/mae: weights of mae hold no tokenizer: give a run of"):
        loaded(folder / "mae")
    message = r"the tokenizer in .* another architecture: it is tokenizer\('convnext.* codes=6, .*,"
    with pytest.raises(UserError, match=message + r" and config.method.args.target=vq\("):
        loaded(folder / "tokenizer", TARGET.replace("codes=6", "codes=8"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(target="vq"), "missing a required argument: 'encoder'"),
        (dict(target=f"vq({CONV!r}, codes=1)"), "codes=1 must be at least 2"),
        (dict(target=f"{TARGET[:-1]}, mean=(0.5,))"), "give both, or neither"),
        (dict(loss="mse"), "loss 'mse' is unknown: choose cross_entropy"),
        (
            dict(encoder="vit(width=8, depth=1, heads=1, patch=2)"),
            "the tokenizer has patches of 4 pixels, and the method of 2 x 2: give method.args.enc",
        ),
    ],
)
def test_mistakes_are_named(changes, message):
    images = {"image": jax.ShapeDtypeStruct((1, 8, 12, 3), np.uint8)}
    with pytest.raises(UserError, match=message):
        jax.eval_shape(mae.make(**{"target": TARGET, **STUDENT, **changes}).init, KEY, images)
