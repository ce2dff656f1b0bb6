"""Attention weights against those of Hugging Face transformers; rollout, attention distance and
gradient rollout against float64 derivations as papers write them down.
"""

import importlib.util
import json

import jax
import numpy as np
import pytest

from mae_jax.explain import attention, class_rollout, distance, rollout
from mae_jax.explain.network import Network
from mae_jax.methods import make_method
from mae_jax.models.vit import ViT
from tests.helpers import vitmae_weights
from tests.helpers.jobs import ROOT

GOLDEN = ROOT / "tests" / "golden"
CASES = ("pixels", "wide")


def stored(name):
    """Arrays of a golden file."""
    with np.load(GOLDEN / f"vitmae_{name}.npz") as arrays:
        return dict(arrays)


def ours(arrays):
    """Our weights [blocks, B, heads, T, T] for the weights and images of a golden file."""
    config = json.loads(str(arrays["config"]))
    encoder = ViT(
        width=config["hidden_size"],
        depth=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        patch=config["patch_size"],
    )
    trained = {k.removeprefix("weight/"): v for k, v in arrays.items() if k.startswith("weight/")}
    trained = {k: v for k, v in trained.items() if k not in vitmae_weights.FIXED}
    depths = config["num_hidden_layers"], config["decoder_num_hidden_layers"]
    params = {"params": vitmae_weights.from_torch(trained, *depths)["encoder"]}
    apply = jax.jit(lambda images: encoder.apply(params, images, method="attention_weights"))
    with jax.default_matmul_precision("highest"):
        return np.stack(apply(arrays["images"].transpose(0, 2, 3, 1)))


@pytest.mark.parametrize("name", CASES)
def test_weights_are_those_of_transformers(name):
    found = ours(stored(name))
    expected = stored("attention")[name]
    assert found.shape == expected.shape and found.std(axis=-1).min() > 1e-3  # not uniform
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("name", CASES)
def test_the_golden_weights_are_made_anew(name):
    pytest.importorskip("torch", reason="needs torch and transformers")
    pytest.importorskip("transformers", minversion="5.23", reason="needs torch and transformers")
    spec = importlib.util.spec_from_file_location("make", GOLDEN / "make_attention.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    made = script.attentions(stored(name))
    np.testing.assert_allclose(made, stored("attention")[name], atol=1e-6)


def random_weights(*shape, seed=0):
    """Attention weights: positive, rows with the sum 1."""
    weights = np.random.default_rng(seed).exponential(size=shape) ** 2
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def test_rows_of_patches_leave_out_class_tokens():
    weights = random_weights(3, 8, 8)
    rows = attention.rows_of(weights, 2)
    assert rows.shape == (3, 7, 6)
    np.testing.assert_allclose(rows.sum(axis=-1), 1, rtol=1e-6)
    for query in range(6):
        expected = weights[:, 2 + query, 2:] / weights[:, 2 + query, 2:].sum(-1, keepdims=True)
        np.testing.assert_allclose(rows[:, 1 + query], expected, rtol=1e-6)
    tokens = weights[:, :2, 2:] / weights[:, :2, 2:].sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(rows[:, 0], tokens.mean(axis=1), rtol=1e-6)
    assert attention.rows_of(weights, 0).shape == (3, 8, 8)


def test_the_page_has_as_many_blocks_as_it_has_room_for(monkeypatch):
    shades = np.random.default_rng(0).integers(0, 16, (3, 6, 2, 9, 8)).astype(np.uint8)
    assert attention.fitting(shades, None) == ([0, 1, 2, 3, 4, 5], 3)
    monkeypatch.setattr(attention, "BUDGET", 800)
    assert attention.fitting(shades, None) == ([2, 5], 3)
    assert attention.fitting(shades, [0, 1, 2, 3, 4, 5])[1] == 1
    monkeypatch.setattr(attention, "BUDGET", 10)
    assert attention.fitting(shades, None) == ([5], 1)


def test_rollout_is_the_product_of_mixed_blocks():
    weights = random_weights(3, 2, 5, 5)
    expected = None
    for block in weights.astype(np.float64):
        mixed = np.zeros((5, 5))
        for query in range(5):
            for key in range(5):
                mixed[query, key] = block[:, query, key].sum() / 2 + (query == key)
            mixed[query] /= mixed[query].sum()
        expected = mixed if expected is None else np.matmul(mixed, expected)
    found = rollout.rollout(weights)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    assert not np.allclose(found, rollout.rollout(weights[::-1]))  # the order counts


def test_gradient_rollout_adds_positive_products():
    rng = np.random.default_rng(1)
    weights, slopes = random_weights(3, 2, 4, 4), rng.normal(size=(3, 2, 4, 4))
    relevance = np.eye(4)
    for block, slope in zip(weights, slopes, strict=True):
        mean = sum(np.clip(s * a, 0, None) for s, a in zip(slope, block, strict=True)) / 2
        relevance = relevance + mean @ relevance
    found = class_rollout.gradient_rollout(weights, slopes)
    np.testing.assert_allclose(found, relevance, rtol=1e-12)
    off = relevance - np.eye(4)
    np.testing.assert_allclose(class_rollout.of_patches(found, 1, "cls"), off[0, 1:])
    mean = class_rollout.of_patches(found, 1, "mean")
    np.testing.assert_allclose(mean, off[1:, 1:].mean(axis=0))


def test_distance_is_weighted_by_attention():
    weights = random_weights(2, 7, 7)  # a class token and 2 x 3 patches of 4 x 8 pixels
    positions = np.array([(4 * row, 8 * column) for row in range(2) for column in range(3)])
    expected = np.zeros(2)
    for head in range(2):
        for query in range(6):
            row = weights[head, 1 + query, 1:].astype(np.float64)
            far = [np.hypot(*(positions[query] - other)) for other in positions]
            expected[head] += (row / row.sum()) @ far / 6
    found = distance.mean_distance(weights, positions, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    uniform = distance.mean_distance(np.full((7, 7), 1 / 7), positions, 1)
    np.testing.assert_allclose(uniform, distance.distances(positions).mean(), rtol=1e-12)
    assert distance.mean_distance(np.eye(7), positions, 1) == 0


@pytest.fixture(scope="module", params=["none", pytest.param("full", marks=pytest.mark.thorough)])
def classifier(request):
    """A small classifier with random weights, and an image."""
    encoder = f"vit(width=16, depth=2, heads=2, patch=4, remat={request.param})"
    pool = "mean" if request.param == "none" else "cls"
    method = make_method(name="tasks.finetune", args=dict(encoder=encoder, classes=3, pool=pool))
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, 8, 12, 3)).astype(np.uint8)
    shapes = jax.eval_shape(lambda key: method.init(key, {"image": image})[0], jax.random.key(0))
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) / 3, shapes)
    network = Network(name="", kind="", spec="", method=method, params=params, extra={}, classes=())
    return network, image


def test_gradients_are_those_of_the_scores(classifier):
    """By differences: a step of the weights of one block changes the score as its gradient says.
    Without a step, scores computed from the weights are those of the kernel.
    """
    network, image = classifier
    weights = network.compute(image, "attention_weights")
    forward, backward = class_rollout.gradients(network)
    zeros = jax.tree.map(np.zeros_like, weights)
    slopes = backward(network.params, image, zeros, 1)
    assert [x.shape for x in slopes] == [(1, 2, 7, 7)] * 2
    nudged = jax.jit(lambda nudges: class_rollout.scores(network, network.params, image, nudges)[0])
    plain = np.asarray(forward(network.params, image))
    np.testing.assert_allclose(nudged(zeros), plain, rtol=1e-4, atol=1e-5)
    for block in range(2):
        length = np.linalg.norm(slopes[block])
        step = np.asarray(slopes[block]) * 0.02 / length
        at = lambda sign, block=block, step=step: np.asarray(
            nudged([zero + sign * step * (n == block) for n, zero in enumerate(zeros)])
        )[1]
        assert at(1) - at(-1) == pytest.approx(2 * 0.02 * length, rel=2e-2) and length > 1e-2
