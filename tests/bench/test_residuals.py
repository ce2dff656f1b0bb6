"""The formula of what blocks keep, against what JAX keeps."""

import jax
import jax.numpy as jnp
import pytest
from jax._src.ad_checkpoint import saved_residuals

from mae_jax.bench.residuals import block_numbers, kept
from mae_jax.methods import make_method
from mae_jax.models.transformer import REMAT, block_class


@pytest.mark.parametrize("remat", REMAT)
@pytest.mark.parametrize("shape", [(3, 50, 96, 6), (2, 197, 64, 4)])
@pytest.mark.parametrize("attention", ["xla", "blockwise"])
def test_a_block(remat, shape, attention):
    images, tokens, width, heads = shape
    block, x = block_class(remat)(heads, attention=attention), jnp.ones((images, tokens, width))
    params = jax.jit(lambda x: block.init(jax.random.key(0), x, False, 0, False))(x)
    saved = saved_residuals(lambda p, x: block.apply(p, x, False, 0, False)[0].sum(), params, x)
    # What has as many rows as there are images: not the parameters.
    numbers = sum(array.size for array, _ in saved if array.shape[:1] == (images,))
    sizes = dict(tokens=tokens, width=width, heads=heads, ratio=4, attention=attention)
    formula = images * block_numbers(remat, **sizes)
    assert formula <= numbers <= 1.06 * formula


def test_a_masked_autoencoder():
    args = dict(encoder="vit(B, patch=16)", dtype="bfloat16")
    method = make_method(name="mae", args=args, total_steps=1)
    lines = ["xla for 50 tokens, 12 heads of 64", "xla for 197 tokens, 16 heads of 32"]
    found = kept(method, (224, 224, 3), 16, lines)
    encoder, decoder = 12 * 50 * 768, 8 * 197 * 512
    assert found["full"] == pytest.approx(2 * 16 * (encoder + decoder) / 1e6)
    assert found["dots"] == pytest.approx(9 * found["full"])
    squares = 12 * 12 * 50**2 + 8 * 16 * 197**2
    assert found["none"] == pytest.approx(16 * found["full"] + 2 * 16 * squares / 1e6)
    lines[1] = "pallas for 197 tokens, 16 heads of 32"
    squares = 12 * 12 * 50**2
    found = kept(method, (224, 224, 3), 16, lines)
    assert found["none"] == pytest.approx(16 * found["full"] + 2 * 16 * squares / 1e6)
    other = make_method(name="rotation", args={"encoder": "vit(Ti)"}, total_steps=1)
    assert kept(other, (32, 32, 3), 1, []) is None
