"""VQ-VAE against float64 numpy: its losses and gradients, and the codebook over microbatches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.methods import vqvae
from mae_jax.ops.pixels import to_bytes
from mae_jax.types import UserError
from tests.ops.test_codebook import nearest_by_loops

CONV = "convnext(widths=(4,), depths=(1,), stem=4, kernel=3)"
SMALL = dict(encoder=CONV, codes=6, code_width=3, decoder_width=4, mean=(0.4,), std=(0.3,))
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def computed():
    """All that one compiled function returns of a method, its images and codebook."""
    method = vqvae.make(**SMALL, commitment=0.5, decay=0.8, revive=0.0)
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 12, 3)).astype(np.uint8)

    def loss(params, extra, images):
        output = method.loss(params, extra, {"image": images}, KEY, 0)
        return output.loss, (output.extra, output.metrics)

    @jax.jit
    def run():
        params, first = method.init(KEY, {"image": images})
        # With counts above 0, no code is dead. Scaled, so that several codes are used.
        book = first["codebook"] | {"counts": jnp.arange(1.0, 7)}
        book["codes"] = 0.3 * book["codes"]
        extra = {"codebook": book}
        inputs = method.normalize(images)
        tokens = method.tokens(params, inputs)
        vectors = method.vectors(params, tokens)  # [4, 6, 3]
        index = jnp.argmin(
            jnp.square(vectors[:, :, None] - book["codes"]).sum(axis=-1), axis=-1
        )  # [4, 6]
        quantized = book["codes"][index]
        decode = lambda x: method.decode(params, x, inputs)
        error = lambda x: jnp.square(decode(x) - inputs).mean()
        rows = images.reshape(2, 2, *images.shape[1:])
        halves = loss(params, loss(params, extra, rows[0])[1][0], rows[1])[1][0]
        return dict(
            whole=jax.value_and_grad(loss, has_aux=True)(params, extra, images),
            halves=method.after_update(params, halves, 0),
            started=loss(params, first, images)[1][0],
            predicted=method.predict(params, extra, {"image": images}, outputs=("codes",)),
            drawn=method.pictures()(params, extra, {"image": images}),
            book=book,
            tokens=tokens,
            vectors=vectors,
            inputs=inputs,
            decoded=decode(quantized),
            slope=jax.grad(error)(quantized),
        )

    return method, images, jax.device_get(run())


@pytest.mark.slow
def test_losses_and_gradients(computed):
    _, images, found = computed
    vectors, codes = (np.asarray(x, np.float64) for x in (found["vectors"], found["book"]["codes"]))
    index = nearest_by_loops(vectors, codes).reshape(4, 6)
    assert 2 < len(np.unique(index))
    np.testing.assert_array_equal(found["predicted"]["codes"], index)
    inputs = (images / 255 - 0.4) / 0.3
    reconstruction = np.square(found["decoded"] - inputs).mean()
    commitment = np.square(vectors - codes[index]).mean()
    (loss, (_, metrics)), gradient = found["whole"]
    np.testing.assert_allclose(metrics["reconstruction"], reconstruction, rtol=1e-5)
    np.testing.assert_allclose(metrics["commitment"], commitment, rtol=1e-5)
    np.testing.assert_allclose(loss, reconstruction + 0.5 * commitment, rtol=1e-5)
    np.testing.assert_allclose(metrics["codes_used"], len(np.unique(index)) / 6, rtol=1e-6)
    # Encodings receive the decoder's gradient at their codes, and are drawn to them.
    slope = found["slope"] + 0.5 * 2 * (vectors - codes[index]) / vectors.size  # [4, 6, 3]
    tokens = found["tokens"][:, -6:]  # [4, 6, D], behind the mean of all
    expected = np.einsum("bld,blz->dz", tokens.astype(np.float64), slope)
    np.testing.assert_allclose(gradient["project"]["kernel"], expected, rtol=1e-3, atol=1e-6)
    assert np.abs(gradient["encoder"]["embed"]["kernel"]).max() > 0


def test_the_codebook_follows_the_whole_batch(computed):
    """In one batch or in two microbatches, which find the same codes."""
    method, _, found = computed
    vectors, book = found["vectors"].astype(np.float64).reshape(24, 3), found["book"]
    index = nearest_by_loops(vectors, book["codes"])
    new = np.bincount(index, minlength=6)
    sums = np.stack([vectors[index == k].sum(axis=0) for k in range(6)])
    counts = 0.8 * np.arange(1, 7) + 0.2 * new
    codes = 0.8 * np.arange(1, 7)[:, None] * book["codes"] + 0.2 * sums
    whole = method.after_update({}, found["whole"][0][1][0], 0)
    for moved in (whole["codebook"], found["halves"]["codebook"]):
        np.testing.assert_allclose(moved["counts"], counts, rtol=1e-5)
        np.testing.assert_allclose(moved["codes"], codes / counts[:, None], rtol=1e-4, atol=1e-5)
        assert not np.any(moved["new"]) and not np.any(moved["sums"])


def test_the_first_batch_initializes_the_codes(computed):
    _, _, found = computed
    rows = found["vectors"].reshape(24, 3)
    for code in found["started"]["codebook"]["codes"]:
        assert np.abs(rows - code).max(axis=1).min() < 1e-6


def test_pictures_show_what_the_codes_decode_to(computed):
    _, images, found = computed
    np.testing.assert_array_equal(found["drawn"]["original"], images)
    expected = to_bytes(found["decoded"], (0.4,), (0.3,))
    np.testing.assert_allclose(found["drawn"]["reconstruction"], expected, atol=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(codes=1), "codes=1 must be at least 2"),
        (dict(code_width=0), "code_width=0"),
        (dict(decay=1.0), "decay=1.0 and revive=0.03 must be in"),
        (dict(revive=1.0), "revive=1.0 must be in"),
        (dict(commitment=-1.0), "commitment=-1.0 must not be negative"),
        (dict(encoder="vit(Ti, patch=6)"), "a patch of 6: a tokenizer needs a power of two"),
        (dict(encoder="vit(Ti, patch=(4, 8))"), r"a patch of \(4, 8\): a tokenizer needs"),
        (dict(dtype="float16"), "choose float32, bfloat16"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        vqvae.make(**{**SMALL, **changes})
