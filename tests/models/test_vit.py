"""What may change the speed or memory of a ViT and of the masked autoencoder, but no number."""

import functools

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mae_jax.engine import mesh as meshes
from mae_jax.methods import mae
from mae_jax.models import transformer, vit
from mae_jax.ops import losses
from mae_jax.ops.patches import patchify
from mae_jax.types import UserError
from tests.helpers.compiled import compiled, noise_like

SHAPE = dict(width=24, depth=2, heads=3, patch=4)
SPEC = "vit(width=24, depth=1, heads=3, patch=4{})"
CONV = "convnext(widths=(8, 16), depths=(1, 1), stem=2)"


@functools.cache
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 16, 12, 3)).astype(np.uint8)


def method(encoder="", **options):
    """A small masked autoencoder; `encoder` adds to its encoder's arguments."""
    shape = dict(decoder_width=16, decoder_depth=2, decoder_heads=2)
    return mae.make(encoder=SPEC.format(encoder), **(shape | options))


@functools.cache
def params_of(**options):
    """Parameters in which no bias or scale is where it starts."""
    return noise_like(method(**options).init, jax.random.key(0), {"image": images()}, scale=0.2)[0]


@functools.cache
def start(method):
    """Parameters as they are drawn."""
    return compiled(method, "init")(jax.random.key(0), {"image": images()})[0]


def assert_same(found, expected):
    """Each leaf against its own largest value. The keys' bias has a gradient of zero but for
    rounding: it stands in one leaf with those of queries and values.
    """
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for path, leaf in jax.tree_util.tree_leaves_with_path(expected):
        scale = np.abs(leaf).max()
        other = functools.reduce(lambda tree, key: tree[key.key], path, found)
        assert scale > 0, path
        np.testing.assert_allclose(other, leaf, rtol=0, atol=5e-6 * scale, err_msg=str(path))


@functools.cache
def learned(method):
    """Compiled: loss and gradient."""
    loss = lambda p: method.loss(p, {}, {"image": images()}, jax.random.key(1), 0).loss
    return jax.jit(jax.value_and_grad(loss))


def plain_loss(method, params):
    """By the definition: every patch predicted, then the hidden ones scored."""
    pixels = method.normalize(images())
    mask = method.draw_mask(jax.random.key(1), pixels)
    prediction = method.model.apply({"params": params}, pixels, mask)
    target = losses.normalize_patches(patchify(pixels, 4))
    errors = losses.errors(prediction, target, method.loss_kind)
    return losses.masked_mean(errors, mask.mask)


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        pytest.param(dict(loss="l1", mask_ratio=0.5, decoder_depth=1), marks=pytest.mark.thorough),
        pytest.param(dict(mask_tokens_in_encoder=True), marks=pytest.mark.thorough),
        pytest.param(
            dict(decoder_gather="onehot", encoder=", gather=onehot"), marks=pytest.mark.thorough
        ),
    ],
    ids=str,
)
def test_leaving_out_what_is_not_scored_changes_neither_loss_nor_gradients(options):
    ours, params = method(**options), params_of(**options)
    found = learned(ours)(params)
    expected = jax.jit(jax.value_and_grad(functools.partial(plain_loss, ours)))(params)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    assert_same(found[1], expected[1])


@pytest.mark.parametrize("encoder", [SPEC.format(""), CONV])
def test_bytes_that_the_encoder_normalizes_give_the_same_tokens(encoder):
    ours = mae.make(encoder=encoder)
    shapes = jax.eval_shape(ours.normalize, images())
    variables = noise_like(ours.encoder.init, jax.random.key(0), shapes)

    @jax.jit
    def tokens(variables, given):
        """Of normalized pixels, of bytes, and of bytes in float32."""
        mask = ours.draw_mask(jax.random.key(1), given)
        apply = functools.partial(ours.encoder.apply, variables, mask=mask)
        both = [apply(x, normalize=ours.normalize) for x in (given, given.astype(np.float32))]
        return apply(ours.normalize(given)), both

    expected, both = tokens(variables, images())
    for found in both:
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_predictions_of_hidden_patches_alone_are_those_of_all():
    ours = method()

    @jax.jit
    def predictions(params, given):
        pixels = ours.normalize(given)
        mask = ours.draw_mask(jax.random.key(1), pixels)
        apply = functools.partial(ours.model.apply, {"params": params}, pixels, mask)
        return apply(False), apply(True), mask

    every, hidden, mask = jax.device_get(predictions(params_of(), images()))
    assert (every.shape, hidden.shape) == ((3, 12, 48), (3, 9, 48))
    for all_of_it, part, index in zip(every, hidden, mask.masked):
        np.testing.assert_allclose(part, all_of_it[index], atol=1e-5)


def test_a_block_of_which_the_first_tokens_are_not_wanted():
    x = np.random.default_rng(0).normal(size=(2, 7, 16)).astype(np.float32)
    block = transformer.Block(heads=2)
    variables = noise_like(block.init, jax.random.key(1), x)
    apply = lambda variables, x, first: block.apply(variables, x, False, first)[0]
    every, part = jax.jit(lambda *args: (apply(*args, 0), apply(*args, 3)))(variables, x)
    assert part.shape == (2, 4, 16)
    np.testing.assert_allclose(part, every[:, 3:], atol=1e-5)


def test_a_kernel_that_is_split_over_devices_is_gathered_and_not_permuted():
    mesh, block = meshes.make_mesh(data=1, fsdp=2), transformer.Block(heads=2)
    rows = meshes.batch_sharding(mesh)
    x = jax.ShapeDtypeStruct((4, 7, 16), np.float32, sharding=rows)
    params = jax.eval_shape(block.init, jax.random.key(0), x)["params"]
    shardings = meshes.infer_shardings(params, mesh)
    assert shardings["attention"]["qkv"]["kernel"].spec == P(None, "fsdp")
    loss = lambda params, x: (block.apply({"params": params}, x, False, 3)[0] ** 2).sum()
    gradient = jax.jit(jax.grad(loss), in_shardings=(shardings, rows), out_shardings=shardings)
    text = gradient.lower(params, x).compile().as_text()
    assert "all-gather" in text and "collective-permute" not in text


def test_the_parameters_have_the_names_and_shapes_of_saved_ones():
    shapes = jax.tree.map(np.shape, params_of()["encoder"]["block_0"])
    dense = lambda before, after: dict(kernel=(before, after), bias=(after,))
    assert shapes == dict(
        norm1=dict(scale=(24,), bias=(24,)),
        attention=dict(qkv=dense(24, 72), proj=dense(24, 24)),
        norm2=dict(scale=(24,), bias=(24,)),
        mlp=dict(fc1=dense(24, 96), fc2=dense(96, 24)),
    )


@pytest.mark.thorough
@pytest.mark.parametrize("remat", ["dots", "full"])
def test_computing_again_changes_neither_loss_nor_gradients(remat):
    ours = method(f", remat={remat}", decoder_remat=remat)
    found, expected = learned(ours)(params_of()), learned(method())(params_of())
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    assert_same(found[1], expected[1])
    jax.tree.map(np.testing.assert_array_equal, start(ours), start(method()))


@pytest.mark.thorough  # gradients without dropped paths are tested above
@pytest.mark.parametrize("remat", ["dots", "full"])
def test_computing_again_drops_the_same_paths(remat):
    shape = SHAPE | dict(drop_path=0.5)
    pixels = np.float32(images() / 255)
    params = noise_like(vit.make(**shape).init, jax.random.key(0), pixels)["params"]

    @functools.partial(jax.jit, static_argnums=0)
    @functools.partial(jax.grad, argnums=1)
    def gradient(network, params, key):
        out = network.apply({"params": params}, pixels, train=True, rngs={"drop_path": key})
        return (out[:, 0] ** 3).sum()

    plain = gradient(vit.make(**shape), params, jax.random.key(1))
    network = vit.make(**shape, remat=remat)
    assert_same(gradient(network, params, jax.random.key(1)), plain)
    other = gradient(network, params, jax.random.key(2))["embed"]["kernel"]
    assert not np.allclose(other, plain["embed"]["kernel"])


def products(jaxpr) -> int:
    """How many matrix products a program has, those of its parts included."""
    found = 0
    for equation in jaxpr.eqns:
        found += equation.primitive.name == "dot_general"
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(value, "jaxpr", value)
            found += products(inner) if hasattr(inner, "eqns") else 0
    return found


def test_how_much_is_computed_again():
    """Of each of three blocks, of one encoder and two decoder: with 'dots' the two products of the
    attention; with 'full' also its two dense layers and the first of the MLP.
    """

    def count(remat):
        ours = method(f", remat={remat}", decoder_remat=remat)
        loss = lambda p: ours.loss(p, {}, {"image": images()}, jax.random.key(1), 0).loss
        return products(jax.make_jaxpr(jax.grad(loss))(params_of()).jaxpr)

    counts = {remat: count(remat) for remat in transformer.REMAT}
    assert counts["dots"] - counts["none"] == 3 * 2
    assert counts["full"] - counts["none"] == 3 * 5


def test_a_patch_of_equal_sides_is_one_number():
    same, one = vit.make(**SHAPE | dict(patch=(4, 4))), vit.make(**SHAPE)
    assert same == one and same.architecture == one.architecture
    assert vit.make(**SHAPE | dict(patch=[2, 4])).patch == (2, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(remat="some"), "vit: remat 'some' is unknown: choose none, dots, full"),
        (dict(gather="put"), "vit: gather 'put' is unknown: choose take, onehot"),
        (dict(attention="fast"), "vit: attention 'fast' is unknown: choose auto, xla, blockwise, "),
        (dict(attention="cudnn"), "vit: attention=cudnn computes in 16 bits and not in float32"),
    ],
)
def test_unknown_choices_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        vit.make(**SHAPE, **options)
    decoder = {f"decoder_{name}": value for name, value in options.items()}
    with pytest.raises(UserError, match=message.replace("vit", "decoder")):
        method(**decoder)
