"""The decoder of CrossMAE, its mixes of encoder blocks, and the fusion of blocks, against NumPy in
float64; predicted subsets of the masked patches.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.engine.mesh import infer_shardings, make_mesh, put_batch
from mae_jax.methods import mae
from mae_jax.models.cross import CrossDecoder, Fusion, KeyMix
from mae_jax.models.vit import ViT
from mae_jax.ops import masking
from mae_jax.ops.patches import patchify
from mae_jax.ops.posemb import sincos
from mae_jax.targets import TargetContext
from mae_jax.types import UserError
from tests.helpers.tiny_args import CONV, make_tiny

KEY = jax.random.key(0)
GRID, WIDTH, HEADS, DEPTH, VALUES = (4, 3), 16, 2, 2, 5
DECODER = CrossDecoder(width=WIDTH, depth=DEPTH, heads=HEADS)


def mask():
    """4 of 12 patches are visible."""
    order = np.stack([np.random.default_rng(seed).permutation(12) for seed in (0, 1)])
    restore = order.argsort(axis=1)
    return masking.Mask(*map(jnp.asarray, (order[:, :4], order[:, 4:], restore, restore >= 4)))


def random_like(tree, seed=0):
    """Random leaves of these shapes, of a size with which nothing saturates."""
    rng = np.random.default_rng(seed)
    draw = lambda x: rng.standard_normal(x.shape).astype(np.float32) / max(1, x.shape[0]) ** 0.5
    return jax.tree.map(draw, tree)


def dense(params, x):
    return x @ params["kernel"].astype(np.float64) + params["bias"]


def norm(params, x):
    centered = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centered**2).mean(axis=-1, keepdims=True) + 1e-6)
    return centered / deviation * params["scale"] + params["bias"]


def attended(params, x, tokens):
    """Cross-attention, one example, head and query after another."""
    q, kv = dense(params["q"], x), dense(params["kv"], tokens)
    k, v, d = kv[..., :WIDTH], kv[..., WIDTH:], WIDTH // HEADS
    out = np.zeros_like(q)
    for b, h, m in np.ndindex(len(x), HEADS, x.shape[1]):
        part = slice(h * d, (h + 1) * d)
        logits = k[b, :, part] @ q[b, m, part] / math.sqrt(d)
        weights = np.exp(logits - logits.max())
        out[b, m, part] = weights / weights.sum() @ v[b, :, part]
    return dense(params["proj"], out)


def decoded(params, tokens, patches):
    """Predictions of `patches` [B, M] from tokens [depth, B, T, E]."""
    x = params["mask_token"][0] + np.asarray(sincos(GRID, WIDTH), np.float64)[patches]
    for i in range(DEPTH):
        block = params[f"block_{i}"]
        x = x + attended(block["attention"], norm(block["norm1"], x), tokens[i])
        y = dense(block["mlp"]["fc1"], norm(block["norm2"], x))
        y = y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
        x = x + dense(block["mlp"]["fc2"], y)
    return dense(params["predict"], norm(params["norm"], x))


@functools.cache
def cross():
    """Parameters, tokens [depth, B, T, E], and the predictions of all and of masked patches, with
    tokens of one block for all and with others for each.
    """
    tokens = np.random.default_rng(1).standard_normal((DEPTH, 2, 5, 24)).astype(np.float32)
    init = lambda: DECODER.init(KEY, jnp.asarray(tokens), mask(), GRID, VALUES)["params"]
    params = random_like(jax.eval_shape(init))

    @jax.jit
    def predict(params, tokens):
        apply = lambda *args: DECODER.apply({"params": params}, *args)
        subset = mask()._replace(masked=mask().masked[:, 2:5])
        return [
            apply(tokens, None, GRID, VALUES),
            apply(tokens, mask(), GRID, VALUES, True),
            apply(tokens, subset, GRID, VALUES, True),
            apply(tokens[1], mask(), GRID, VALUES, True),
        ]

    return params, tokens, jax.device_get(predict(params, tokens))


def test_the_decoder():
    params, tokens, (everything, masked, subset, shared) = cross()
    patches = np.asarray(mask().masked)
    expected = decoded(params, tokens, patches)
    np.testing.assert_allclose(masked, expected, rtol=2e-5, atol=2e-5)
    whole = decoded(params, tokens, np.tile(np.arange(12), (2, 1)))
    np.testing.assert_allclose(everything, whole, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(subset, expected[:, 2:5], rtol=2e-5, atol=2e-5)
    one = decoded(params, [tokens[1]] * DEPTH, patches)
    np.testing.assert_allclose(shared, one, rtol=2e-5, atol=2e-5)


ENCODER = ViT(width=12, depth=3, heads=2, patch=4, class_tokens=2)
IMAGES = np.random.default_rng(2).standard_normal((2, 16, 12, 1)).astype(np.float32)


@pytest.mark.parametrize("module", [Fusion((0, 1, 3)), KeyMix((0, 2, -1), mixes=2)], ids=str)
def test_tokens_of_several_blocks(module):
    """From the taps of the encoder and its embedding, which is computed here."""
    states = [jax.ShapeDtypeStruct((2, 6, 12), jnp.float32)] * 3
    fused = random_like(jax.eval_shape(module.init, KEY, states)["params"], seed=5)
    params = random_like(jax.eval_shape(ENCODER.init, KEY, IMAGES)["params"], seed=6)

    @jax.jit
    def run(params, fused):
        fuse = lambda states: module.apply({"params": fused}, states)
        variables = {"params": params}
        trunk = ENCODER.apply(variables, IMAGES, mask(), taps=None, method="run")
        found = ENCODER.apply(variables, IMAGES, mask(), fuse, depths=module.depths, method="fused")
        return found, trunk.taps

    found, taps = jax.device_get(run(params, fused))
    patches = dense(params["embed"], np.asarray(patchify(jnp.asarray(IMAGES), 4), np.float64))
    patches = patches + np.asarray(sincos(GRID, 12))
    kept = np.take_along_axis(patches, np.asarray(mask().keep)[:, :, None], axis=1)
    first = np.broadcast_to(params["cls_token"], (2, 2, 12))
    blocks = [np.concatenate([first, kept], axis=1), *np.asarray(taps, np.float64)]
    chosen = [blocks[depth] for depth in module.depths]
    if isinstance(module, Fusion):
        weights = np.exp(fused["weights"].astype(np.float64))
        weights /= weights.sum()
        terms = [dense(fused[f"project_{i}"], chosen[i]) for i in range(2)] + [chosen[2]]
        mixed = sum(w * x for w, x in zip(weights, terms))
    else:
        mixed = np.stack([sum(w * x for w, x in zip(row, chosen)) for row in fused["weights"]])
    np.testing.assert_allclose(found, norm(params["norm"], mixed), rtol=1e-4, atol=1e-4)


def test_initial_weights():
    states = [jnp.zeros((1, 2, 4))] * 25
    weights = jax.jit(KeyMix(tuple(range(25)), mixes=40).init)(KEY, states)["params"]["weights"]
    assert weights.shape == (40, 25) and np.std(weights) == pytest.approx(0.2, rel=0.1)
    params = jax.eval_shape(Fusion((1, 2)).init, KEY, states[:2])["params"]
    assert set(params) == {"weights", "project_0"}, "the last has no projection"


def test_a_shuffled_mask_is_the_same_mask_in_random_order():
    """Each of the masked patches is the first one as often."""
    scores = jnp.tile(jnp.arange(12.0), (4000, 1))
    before = masking.from_scores(scores, 4)
    after = jax.jit(masking.shuffled)(KEY, before)
    np.testing.assert_array_equal(after.keep, before.keep)
    np.testing.assert_array_equal(after.mask, before.mask)
    np.testing.assert_array_equal(np.sort(after.masked, axis=1), before.masked)
    order = np.concatenate([after.keep, after.masked], axis=1)
    np.testing.assert_array_equal(np.take_along_axis(order, np.asarray(after.restore), 1), scores)
    counts = np.bincount(np.asarray(after.masked)[:, :2].ravel(), minlength=12)[4:] / 4000
    np.testing.assert_allclose(counts, 2 / 8, atol=5 * math.sqrt(0.25 * 0.75 / 4000))


def make_batch():
    """Images [4, 16, 12, 3] with large, plain areas."""
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 3, 3))
    return {"image": images.repeat(8, axis=1).repeat(4, axis=2).astype(np.uint8)}


def start(method):
    """Random parameters."""
    return random_like(jax.eval_shape(method.init, KEY, make_batch())[0])


@pytest.mark.parametrize(
    ("decoder", "share"), [("cross", 1 / 3), pytest.param("self", 0.5, marks=pytest.mark.thorough)]
)
def test_the_loss_is_that_of_the_share(decoder, share):
    """Of a cross-attention decoder, whose predictions do not depend on each other: the mean over
    some of the patches that it predicts all.
    """
    method = make_tiny("methods.mae", decoder=decoder, predict_share=share, mask="grid")
    batch = make_batch()
    context = TargetContext(patch=(4, 4), take=lambda x: x, normalize=method.normalize)

    @jax.jit
    def run(params):
        mask = method.draw_mask(KEY, batch["image"])
        prediction = method.reconstruct(params, batch["image"], mask)
        target = method.target.make({}, batch["image"], context)
        some = method.reconstruct_for_loss(params, batch["image"], mask)
        return prediction, target, some, mask, method.loss(params, {}, batch, KEY, 0).loss

    prediction, target, some, mask, loss = jax.device_get(run(start(method)))
    count = int(9 * share + 1e-9)  # of 9 masked patches of 12
    assert some.shape == (4, count, 48)
    first = mask.masked[:, :count]
    wanted = np.take_along_axis(target, first[:, :, None], 1)
    assert loss == pytest.approx(np.square(some - wanted).mean(), rel=1e-5)
    if decoder == "cross":
        expected = np.take_along_axis(prediction, first[:, :, None], 1)
        np.testing.assert_allclose(some, expected, rtol=1e-5, atol=1e-5)


def descend(leaf, gradient):
    """A leaf after a step of 1e-2 in the direction of its gradient."""
    gradient = np.asarray(gradient)
    return leaf - 1e-2 * gradient / (np.sqrt(np.mean(np.square(gradient))) + 1e-20)


OPTIONS = {
    "cross": dict(decoder="cross", fuse=(0, 1), predict_share=0.5, decoder_remat="full"),
    "fusion": dict(fuse=(0, -1), mask="noise(color=green)"),
}


def stepped(name):
    """Parameters, and a compiled function (params, batch, key) -> (loss, gradient)."""
    method = make_tiny("methods.mae", **OPTIONS[name])
    loss = lambda params, batch, key: method.loss(params, {}, batch, key, 0).loss
    return start(method), jax.jit(jax.value_and_grad(loss))


CASES = ["cross", pytest.param("fusion", marks=pytest.mark.thorough)]


@pytest.mark.thorough
@pytest.mark.parametrize("name", OPTIONS)
def test_one_device_and_two_have_the_same_loss_and_gradient(name):
    params, step = stepped(name)
    batch = make_batch()
    first, gradient = jax.device_get(step(params, batch, KEY))
    mesh = make_mesh(fsdp=2)
    split = jax.tree.map(jax.device_put, params, infer_shardings(params, mesh))
    both, found = jax.device_get(step(split, put_batch(batch, mesh), KEY))
    assert both == pytest.approx(first, rel=2e-5)
    size = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient))
    for ours, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(other, ours, atol=1e-4 * np.abs(ours).max() + 1e-6 * size)


@pytest.mark.parametrize("name", CASES)
def test_a_fixed_batch_is_learned(name):
    params, step = stepped(name)
    batch, losses = make_batch(), []
    for i in range(30):
        value, gradient = step(params, batch, jax.random.fold_in(KEY, i))
        losses.append(float(value))
        assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))
        params = jax.tree.map(descend, params, gradient)
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(decoder="crss"), "decoder 'crss' is unknown: choose self, cross"),
        (dict(predict_share=0.0), r"predict_share 0.0 is outside \(0, 1\]"),
        (dict(predict_share=1.5), r"predict_share 1.5 is outside \(0, 1\]"),
        (dict(predict_share=0.5, loss_on="all"), "of the masked patches: set loss_on=masked"),
        (dict(fuse=(0, 5)), "fuse: depth 5 is not one of 2: choose 0 to 1"),
        (dict(fuse=(0,)), "leaves out the last block, which must learn: add -1"),
        (dict(fuse=(0, 1), encoder=CONV, pool="mean"), "ConvNeXt have no tokens to fuse"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(make_tiny("methods.mae", **options).init, KEY, make_batch())


def test_a_share_is_at_least_one_patch():
    """And exact where floating point is not: a third of 147 masked patches are 49."""
    shares = [(147, 1 / 3, 49), (147, 1.0, 147), (9, 0.5, 4), (9, 0.01, 1)]
    for masked, share, expected in shares:
        assert mae.make(predict_share=share).num_predicted(masked) == expected


def test_defaults_are_the_papers():
    method = mae.make()
    assert method.fusion is None and method.predict_share == 1
    assert method.decoder.__class__.__name__ == "Decoder"
