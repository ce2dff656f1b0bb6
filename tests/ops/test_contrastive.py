"""Contrastive losses against float64 double loops written from the papers' formulas, against
torch's gradients, and over two devices against one.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.engine.mesh import batch_sharding, make_mesh
from mae_jax.ops.contrastive import image_text, image_text_sigmoid, info_nce, nt_xent, unit
from mae_jax.types import UserError


def pair(count=6, width=5, seed=0, noise=1.0):
    """Two views that resemble each other [count, width] float32, of all lengths."""
    rng = np.random.default_rng(seed)
    one = rng.normal(size=(count, width))
    two = one + noise * rng.normal(size=one.shape)
    return one.astype(np.float32), (3 * two).astype(np.float32)


def cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return a @ b / np.sqrt((a @ a) * (b @ b))


def nt_xent_by_equation_1(one, two, temperature):
    """The mean of l(i, j) over all ordered pairs of views, and the share in which j is the best."""
    views, count = [*one, *two], len(one)
    losses, found = [], []
    for i in range(2 * count):
        j = (i + count) % (2 * count)
        others = [k for k in range(2 * count) if k != i]
        similar = {k: cosine(views[i], views[k]) for k in others}
        below = sum(np.exp(similar[k] / temperature) for k in others)
        losses.append(-np.log(np.exp(similar[j] / temperature) / below))
        found.append(max(others, key=similar.get) == j)
    return np.mean(losses), np.mean(found)


def info_nce_by_algorithm_1(queries, keys, temperature):
    losses, found = [], []
    for i, query in enumerate(queries):
        similar = np.array([cosine(query, key) for key in keys])
        terms = np.exp(similar / temperature)
        losses.append(-np.log(terms[i] / terms.sum()))
        found.append(similar.argmax() == i)
    return 2 * temperature * np.mean(losses), np.mean(found)


CASES = {
    "nt_xent": (nt_xent, nt_xent_by_equation_1),
    "info_nce": (info_nce, info_nce_by_algorithm_1),
}


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_the_papers_formula(name, temperature):
    function, formula = CASES[name]
    one, two = pair()
    value, found = jax.jit(functools.partial(function, temperature=temperature))(one, two)
    expected, share = formula(one, two, temperature)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(found, share, rtol=1e-6)
    assert 0 < share < 1, "a case in which some are found and some are not"
    assert value.dtype == found.dtype == jnp.float32


def test_gradients_of_nt_xent_are_torchs():
    torch = pytest.importorskip("torch")
    one, two = pair()
    value, gradients = jax.jit(
        jax.value_and_grad(lambda a, b: nt_xent(a, b, temperature=0.3)[0], argnums=(0, 1))
    )(one, two)
    a, b = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (one, two))
    z = torch.nn.functional.normalize(torch.cat([a, b]))
    logits = (z @ z.T / 0.3).masked_fill(torch.eye(12, dtype=torch.bool), -torch.inf)
    loss = torch.nn.functional.cross_entropy(logits, (torch.arange(12) + 6) % 12)
    loss.backward()
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    for ours, theirs in zip(gradients, (a, b), strict=True):
        np.testing.assert_allclose(ours, theirs.grad, rtol=1e-5, atol=1e-6)


def test_gradients_of_info_nce_are_torchs_and_none_reaches_the_keys():
    torch = pytest.importorskip("torch")
    one, two = pair()
    to_queries, to_keys = jax.jit(
        jax.grad(lambda a, b: info_nce(a, b, temperature=0.3)[0], argnums=(0, 1))
    )(one, two)
    a = torch.tensor(one, dtype=torch.float64, requires_grad=True)
    normalize = torch.nn.functional.normalize
    logits = normalize(a) @ normalize(torch.tensor(two, dtype=torch.float64)).T / 0.3
    (0.6 * torch.nn.functional.cross_entropy(logits, torch.arange(6))).backward()
    np.testing.assert_allclose(to_queries, a.grad, rtol=1e-5, atol=1e-6)
    assert not np.any(to_keys)


@pytest.mark.parametrize("name", CASES)
def test_the_others_are_those_on_all_devices(name):
    function, formula = CASES[name]
    one, two = pair(count=8)
    sharding = batch_sharding(make_mesh())
    split = [jax.device_put(x, sharding) for x in (one, two)]
    loss = functools.partial(function, temperature=0.2)
    gradient = jax.value_and_grad(lambda a, b: loss(a, b)[0])
    value, grads = jax.jit(gradient)(*split)
    assert len(split[0].sharding.device_set) == 2
    whole, halves = (
        formula(one, two, 0.2)[0],
        np.mean([formula(one[i : i + 4], two[i : i + 4], 0.2)[0] for i in (0, 4)]),
    )
    np.testing.assert_allclose(value, whole, rtol=1e-5)
    assert abs(whole - halves) > 1e-2, "a case in which each device by itself would give another"
    alone = jax.jit(gradient)(one, two)
    np.testing.assert_allclose(value, alone[0], rtol=1e-6)
    np.testing.assert_allclose(grads, alone[1], rtol=1e-4, atol=1e-6)


def test_each_device_computes_the_similarities_of_its_own_rows():
    """[16, 16] similarities of 8 pairs: 8 rows on each of two devices, and never all of them."""
    sharding = batch_sharding(make_mesh())
    shapes = [jax.ShapeDtypeStruct((8, 5), jnp.float32, sharding=sharding)] * 2
    gradient = jax.grad(lambda a, b: nt_xent(a, b, temperature=0.2)[0], argnums=(0, 1))
    compiled = jax.jit(gradient, out_shardings=sharding).lower(*shapes).compile().as_text()
    assert "f32[8,16]" in compiled and "f32[16,16]" not in compiled


def test_embeddings_of_zeros_do_not_spoil_gradients():
    one, two = pair()
    one[2] = two[3] = 0
    for function in (nt_xent, info_nce):
        value, grads = jax.jit(
            jax.value_and_grad(lambda a, b, f=function: f(a, b, temperature=0.2)[0], argnums=(0, 1))
        )(one, two)
        assert np.isfinite(value) and all(np.abs(g).max() < 10 for g in grads)
    np.testing.assert_array_equal(unit(jnp.zeros((1, 3))), np.zeros((1, 3)))


@pytest.mark.parametrize("function", [nt_xent, info_nce])
def test_a_batch_of_one_image_teaches_nothing_and_says_so(function):
    with pytest.raises(UserError, match="raise config.data.batch_size, or lower config.accumulate"):
        function(np.ones((1, 3), np.float32), np.ones((1, 3), np.float32), temperature=0.2)


def pairs(count=5, width=4):
    """Embeddings of images and texts, and which pairs are complete."""
    rng = np.random.default_rng(1)
    images, texts = rng.normal(size=(2, count, width))
    return images, texts, np.array([True, True, False, True, True])


def cosines(images, texts):
    unit_rows = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts)]
    return unit_rows[0] @ unit_rows[1].T


def test_clips_loss_is_symmetric_and_leaves_out_incomplete_pairs():
    images, texts, valid = pairs()
    found = jax.jit(image_text)(jnp.float32(images), jnp.float32(texts), valid, scale=7.0)
    logits = 7 * cosines(images, texts)[valid][:, valid]
    log = lambda x: x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    expected = -(np.diag(log(logits)).mean() + np.diag(log(logits.T)).mean()) / 2
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    np.testing.assert_allclose(found[1], np.mean(logits.argmax(1) == np.arange(4)))


def test_siglips_loss_is_a_sum_over_all_pairs():
    images, texts, valid = pairs()
    found = jax.jit(image_text_sigmoid)(
        jnp.float32(images), jnp.float32(texts), valid, scale=7.0, bias=-3.0
    )
    logits = 7 * cosines(images, texts)[valid][:, valid] - 3
    signs = 2 * np.eye(4) - 1
    expected = np.log1p(np.exp(-signs * logits)).sum() / 4
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    np.testing.assert_allclose(found[1], np.mean(logits.argmax(1) == np.arange(4)))


@pytest.mark.parametrize("sigmoid", [False, True])
def test_without_any_pair_the_loss_of_images_and_texts_is_zero(sigmoid):
    images, texts, valid = pairs()
    loss = functools.partial(image_text_sigmoid, bias=0.0) if sigmoid else image_text
    value, gradient = jax.jit(
        jax.value_and_grad(lambda x: loss(x, np.float32(texts), valid & False, scale=1.0)[0])
    )(np.float32(images))
    assert value == 0 and not np.asarray(gradient).any()
