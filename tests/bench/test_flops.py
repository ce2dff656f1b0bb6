"""Model FLOPs and parameters by formula, against every product that JAX makes."""

import math

import jax
import jax.numpy as jnp
import pytest

from mae_jax.bench.flops import count
from mae_jax.methods import mae, rotation
from mae_jax.tasks import finetune, linear_probe

SHAPE = (8, 12, 3)
VIT = "vit(width=16, depth=3, heads=2, patch=4)"
DECODER = dict(decoder_width=8, decoder_depth=2, decoder_heads=2)


def products(jaxpr) -> int:
    """Operations of all products of matrices in a program, those inside of others too. Products
    with a vector are none: the gradients of norms are written with them.
    """
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general" and min(x.aval.ndim for x in eqn.invars) > 1:
            (contracted, _), _ = eqn.params["dimension_numbers"]
            sides = eqn.invars[0].aval.shape
            total += 2 * eqn.outvars[0].aval.size * math.prod(sides[i] for i in contracted)
        for inner in jax.core.jaxprs_in_params(eqn.params):
            total += products(inner)
    return total


def per_image(method, *, gradient: bool, shape=SHAPE, rows=2) -> float:
    """Operations per image of a method's loss, or of its loss and gradient."""
    batch = {
        "image": jnp.zeros((rows, *shape), jnp.uint8),
        "label": jnp.zeros(rows, jnp.int32),
    }
    params, extra = jax.eval_shape(method.init, jax.random.key(0), batch)
    loss = lambda params: method.loss(params, extra, batch, jax.random.key(1), 0).loss
    run = jax.value_and_grad(loss) if gradient else loss
    extra = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), extra)
    return products(jax.make_jaxpr(run)(params).jaxpr) / rows


@pytest.mark.parametrize("ratio, tokens", [(0.75, False), (0.5, False), (0.75, True)])
def test_an_encoder_is_every_product_and_no_other(ratio, tokens):
    method = mae.make(encoder=VIT, mask_ratio=ratio, mask_tokens_in_encoder=tokens, **DECODER)
    images = jnp.zeros((2, *SHAPE))
    mask = method.draw_mask(jax.random.key(0), images)
    encoder = method.encoder
    params = jax.eval_shape(encoder.init, jax.random.key(0), images, mask)
    run = jax.make_jaxpr(lambda params: encoder.apply(params, images, mask))(params)
    assert count(method, SHAPE).forward["encoder"] == products(run.jaxpr) / 2


@pytest.mark.parametrize("loss_on", ["all", "masked"])
def test_a_decoder_is_every_product_but_what_its_last_block_leaves_out(loss_on):
    method = mae.make(encoder=VIT, loss_on=loss_on, **DECODER)
    counted, tokens, width, values = count(method, SHAPE), 7, 8, 48
    # Of tokens that no loss sees: logits, weighted sum, projection, MLP, prediction.
    one = 4 * tokens * width + 2 * width**2 + 16 * width**2 + 2 * width * values
    unseen = one * (1 if loss_on == "all" else 1 + 1)
    forward, both = (per_image(method, gradient=gradient) for gradient in (False, True))
    whole = sum(counted.forward.values())
    assert whole - unseen <= forward <= whole
    pixels = 2 * 1 * 48 * 16  # the gradient that nobody needs
    assert 3 * forward - pixels == both
    assert sum(counted.train.values()) == 3 * whole


@pytest.mark.parametrize(
    "options",
    [
        dict(decoder="cross"),
        dict(decoder="cross", predict_share=0.5, fuse=(0, 2, 3)),
        dict(decoder="cross", mask_tokens_in_encoder=True, predict_share=0.5),
    ],
    ids=str,
)
def test_a_cross_attention_decoder_is_every_product_and_no_other(options):
    method = mae.make(encoder=VIT, **DECODER, **options)
    assert sum(count(method, SHAPE).forward.values()) == per_image(method, gradient=False)


def test_fusion_and_a_share_of_the_patches_in_a_decoder_with_self_attention():
    method = mae.make(encoder=VIT, **DECODER, predict_share=0.4, fuse=(1, 2, 3))
    tokens = 1 + 1 + 2  # the class, one visible of 6 patches, two of 5 masked ones
    unseen = (1 + 1) * (4 * tokens * 8 + 2 * 8**2 + 16 * 8**2 + 2 * 8 * 48)
    whole = sum(count(method, SHAPE).forward.values())
    assert per_image(method, gradient=False) == whole - unseen


def test_the_published_shapes_by_hand():
    """ViT-B/16: 49 visible patches of 768 numbers, 12 blocks of width 768; 8 of width 512."""

    def block(t, d):
        shapes = [(t, d, 3 * d), (t, d, t), (t, t, d), (t, d, d), (t, d, 4 * d), (t, 4 * d, d)]
        return sum(2 * m * k * n for m, k, n in shapes)

    encoder = 2 * 49 * 768 * 768 + 12 * block(50, 768)
    decoder = 2 * 50 * 768 * 512 + 8 * block(197, 512) + 2 * 197 * 512 * 768
    counted = count(mae.make(), (224, 224, 3))
    assert counted.forward == {"encoder": encoder, "decoder": decoder}
    assert counted.train == {"encoder": 3 * encoder, "decoder": 3 * decoder}
    assert sum(counted.train.values()) == pytest.approx(5.87e10, rel=0.01)


@pytest.mark.parametrize("trainable, first", [("all", 0), (1, 5), (0, 7), ("mlp", 6)])
def test_fine_tuning_pays_for_gradients_down_to_the_first_layer_that_learns(trainable, first):
    method = finetune.make(encoder=VIT, classes=5, trainable=trainable)
    counted = count(method, SHAPE)
    assert sum(counted.forward.values()) == per_image(method, gradient=False)
    tokens, width = 7, 16
    attention, mlp = 8 * tokens * width**2 + 4 * tokens**2 * width, 16 * tokens * width**2
    layers = [2 * 6 * 48 * width, *[attention, mlp] * 3, 2 * width * 5]
    assert sum(counted.train.values()) == sum(layers) + 2 * sum(layers[first:])
    # Nobody needs the gradient of the pixels; before any other product a norm learns.
    pixels = 0 if first else layers[0]
    assert sum(counted.train.values()) == per_image(method, gradient=True) + pixels


def test_probing_pays_for_one_way_through_the_encoder():
    method = linear_probe.make(encoder=VIT, classes=5, lr_factors=(0.1, 1.0))
    counted = count(method, SHAPE)
    assert sum(counted.forward.values()) == per_image(method, gradient=False)
    # No gradient of the features is needed.
    assert sum(counted.train.values()) == per_image(method, gradient=True) + 2 * 16 * 5 * 2
    assert counted.train["encoder"] == counted.forward["encoder"]


def test_xla_counts_the_same_and_what_is_not_a_product():
    shape = (64, 64, 3)
    encoder = "vit(width=512, depth=2, heads=4, patch=8)"
    decoder = dict(decoder_width=256, decoder_depth=1, decoder_heads=2, loss_on="all")
    method = mae.make(encoder=encoder, **decoder)
    batch = {"image": jnp.zeros((2, *shape), jnp.uint8)}
    params, _ = jax.eval_shape(method.init, jax.random.key(0), batch)
    loss = lambda params: method.loss(params, {}, batch, jax.random.key(1), 0).loss
    xla = jax.jit(jax.grad(loss)).lower(params).cost_analysis()["flops"] / 2
    formula = sum(count(method, shape).train.values())
    assert formula * 0.97 < xla < formula * 1.05


@pytest.mark.parametrize("method", [mae.make(encoder="convnext(T)"), rotation.make(encoder=VIT)])
def test_there_is_no_formula_for_others(method):
    assert count(method, (64, 64, 3)) is None
