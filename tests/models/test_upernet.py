"""UperNet and its pyramid: equal to transformers' BEiT, whose random weights are taken over."""

import jax
import numpy as np
import pytest

from mae_jax.models import upernet
from mae_jax.models.pyramid import Pyramid
from mae_jax.models.segmenter import taps_of
from mae_jax.models.upernet import FCN, UperNet
from mae_jax.models.vit import ViT
from mae_jax.types import UserError

torch = beit = None


@pytest.fixture(scope="module", autouse=True)
def reference():
    """Imports it when a test runs, as it takes seconds."""
    global torch, beit
    torch = pytest.importorskip("torch")
    beit = pytest.importorskip("transformers.models.beit.modeling_beit")


WIDTH, CLASSES = 8, 5


def config(**more):
    """A tiny BEiT without its scales of layers."""
    return beit.BeitConfig(
        hidden_size=WIDTH,
        num_hidden_layers=12,
        num_attention_heads=2,
        intermediate_size=2 * WIDTH,
        image_size=16,
        patch_size=4,
        layer_norm_eps=1e-6,
        layer_scale_init_value=0.0,
        use_absolute_position_embeddings=True,
        use_relative_position_bias=True,
        num_labels=CLASSES,
        auxiliary_channels=6,
        **more,
    )


def shaken(module):
    """Weights and statistics that are all random."""
    generator = torch.Generator().manual_seed(0)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data = 0.5 + 0.4 * torch.rand(tensor.shape, generator=generator)
            tensor.data *= torch.where(torch.rand(tensor.shape, generator=generator) < 0.5, -1, 1)
    for name, tensor in module.named_buffers():
        if name.endswith("running_var"):
            tensor.data = tensor.abs()
    return module


def array(tensor):
    return tensor.detach().numpy()


def first_last(maps):
    return [torch.tensor(x.transpose(0, 3, 1, 2)) for x in maps]


def norm_of(module):
    """(parameters, statistics) of BatchNorm."""
    stats = dict(mean=array(module.running_mean), var=array(module.running_var))
    return dict(scale=array(module.weight), bias=array(module.bias)), stats


def put(variables, path, params, stats=None):
    """Puts parameters and statistics at a path of nested dicts."""
    for tree, value in ((variables["params"], params), (variables["batch_stats"], stats)):
        if value is None:
            continue
        *parents, last = path.split("/")
        for name in parents:
            tree = tree.setdefault(name, {})
        tree[last] = value


def put_conv(variables, path, module):
    """That of a convolution with BatchNorm."""
    put(variables, f"{path}/conv", dict(kernel=kernel(module.convolution)))
    put(variables, f"{path}/norm", *norm_of(module.normalization))


def kernel(module):
    return array(module.weight).transpose(2, 3, 1, 0)


def dense(module):
    return dict(kernel=array(module.weight)[..., 0, 0].T, bias=array(module.bias))


def head_variables(theirs):
    """Of `UperNet`."""
    found = dict(params={}, batch_stats={})
    for bins, block in zip((1, 2, 3, 6), theirs.psp_modules.blocks, strict=True):
        put_conv(found, f"pooling/pool_{bins}", block.conv)
    put_conv(found, "pooling/fuse", theirs.psp_bottleneck)
    for i, (lateral, output) in enumerate(zip(theirs.lateral_convs, theirs.fpn_convs)):
        put_conv(found, f"lateral_{i}", lateral)
        put_conv(found, f"output_{i}", output)
    put_conv(found, "fuse", theirs.fpn_bottleneck)
    put(found, "classifier/fc", dense(theirs.classifier))
    return found


def pyramid_variables(theirs):
    """Of `Pyramid`."""
    found = dict(params={}, batch_stats={})
    first, second = theirs.fpn1, theirs.fpn2
    for name, module in (
        ("up_0a", first.conv_transpose1),
        ("up_0b", first.conv_transpose2),
        ("up_1", second),
    ):
        weight = array(module.weight).transpose(0, 2, 3, 1).reshape(WIDTH, -1)  # of [in, out, 2, 2]
        put(found, name, dict(fc=dict(kernel=weight), bias=array(module.bias)))
    put(found, "norm_0", *norm_of(first.normalization))
    return found


def shapes_of(tree):
    return jax.tree.map(np.shape, tree)


def maps_of(sizes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(2, *size, WIDTH)).astype(np.float32) for size in sizes]


def close(found, expected, rtol=1e-4):
    expected = array(expected).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, expected, atol=rtol * np.abs(expected).max())


@pytest.mark.parametrize("train", [False, True])
def test_the_head_is_that_of_transformers(train, monkeypatch):
    """Of maps whose sides are not multiples of each other, too; and what it keeps of a batch."""
    monkeypatch.setattr(upernet, "DROPOUT", 0.0)
    sizes = [(10, 14), (5, 7), (3, 4), (2, 2)]
    theirs, maps = shaken(beit.BeitUperHead(config())), maps_of(sizes)
    ours, given = UperNet(CLASSES, WIDTH), head_variables(theirs)
    initial = jax.eval_shape(ours.init, jax.random.key(0), maps)
    assert shapes_of(dict(initial)) == shapes_of(given)
    given = jax.tree.map(np.array, given)  # torch moves its own
    expected = theirs.train(train)(first_last(maps))
    apply = lambda given, maps: ours.apply(given, maps, train, mutable=["batch_stats"])
    found, moved = jax.jit(apply)(given, maps)
    close(found, expected)
    after = head_variables(theirs)["batch_stats"]
    for i, size in enumerate(sizes[:3] if train else ()):
        new, old, torchs = (
            tree[f"lateral_{i}"]["norm"]
            for tree in (moved["batch_stats"], given["batch_stats"], after)
        )
        np.testing.assert_allclose(new["mean"], torchs["mean"], rtol=1e-4, atol=1e-5)
        count = 2 * size[0] * size[1]  # torch keeps the unbiased variance
        batch = (torchs["var"] - 0.9 * old["var"]) * (count - 1) / count
        np.testing.assert_allclose(new["var"], 0.9 * old["var"] + batch, rtol=1e-4, atol=1e-5)


def test_the_auxiliary_head_is_that_of_transformers():
    theirs, (x,) = shaken(beit.BeitFCNHead(config())).eval(), maps_of([(5, 7)])
    given = dict(params={}, batch_stats={})
    put_conv(given, "conv", theirs.convs[0])
    put(given, "classifier/fc", dense(theirs.classifier))
    expected = theirs([None, None, *first_last([x])])
    close(jax.jit(FCN(CLASSES, 6).apply)(given, x), expected)


def vit_params(theirs):
    """Parameters of a ViT with relative positions."""
    embeddings = theirs.embeddings
    patches = embeddings.patch_embeddings.projection
    affine = lambda norm: dict(scale=array(norm.weight), bias=array(norm.bias))
    linear = lambda layer: dict(kernel=array(layer.weight).T, bias=array(layer.bias))
    params = dict(
        cls_token=array(embeddings.cls_token),
        positions=array(embeddings.position_embeddings)[0],
        embed=dict(kernel=kernel(patches).reshape(-1, WIDTH), bias=array(patches.bias)),
    )
    for i, layer in enumerate(theirs.layers):
        from_to = layer.attention
        qkv = (from_to.q_proj, from_to.k_proj, from_to.v_proj)  # keys have no bias
        bias = [array(from_to.q_proj.bias), np.zeros(WIDTH), array(from_to.v_proj.bias)]
        table = layer.relative_position_bias.relative_position_bias_table
        params[f"block_{i}"] = dict(
            norm1=affine(layer.layernorm_before),
            norm2=affine(layer.layernorm_after),
            mlp=dict(fc1=linear(layer.mlp.fc1), fc2=linear(layer.mlp.fc2)),
            attention=dict(
                qkv=dict(
                    kernel=np.concatenate([array(x.weight).T for x in qkv], axis=1),
                    bias=np.concatenate(bias),
                ),
                proj=linear(from_to.o_proj),
                relative_positions=dict(table=array(table)),
            ),
        )
    return params


def test_taps_and_pyramid_are_those_of_transformers():
    """BeitBackbone with out_indices (4, 6, 8, 12) counts the embedding as 0."""
    theirs = beit.BeitBackbone(config(add_fpn=True, out_indices=[4, 6, 8, 12]))
    shaken(theirs).eval()
    sizes = dict(width=WIDTH, depth=12, heads=2, mlp_ratio=2.0, patch=4, final_norm=False)
    encoder = ViT(**sizes, learned_positions=True, relative_positions=True)
    given, params = pyramid_variables(theirs.fpn), vit_params(theirs.beit)
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    initial = jax.eval_shape(encoder.init, jax.random.key(0), images)["params"]
    assert shapes_of(dict(initial)) == shapes_of(params)

    @jax.jit
    def run(images):
        maps = encoder.apply({"params": params}, images, taps=taps_of(12), method="maps")
        return Pyramid().apply(given, maps)

    with torch.no_grad():
        expected = theirs(torch.tensor(images.transpose(0, 3, 1, 2))).feature_maps
    for found, level, side in zip(run(images), expected, (16, 8, 4, 2), strict=True):
        assert found.shape == (2, side, side, WIDTH)
        close(found, level)


def test_taps_are_the_published_ones():
    assert taps_of(12) == (3, 5, 7, 11) and taps_of(24) == (7, 11, 15, 23)
    assert taps_of(4) == (0, 1, 2, 3) and taps_of(1) == (0, 0, 0, 0)


def test_maps_that_cannot_be_halved_are_refused():
    with pytest.raises(UserError, match="at least 2 x 2 patches, and these are 1 x 2"):
        Pyramid().init(jax.random.key(0), maps_of([(1, 2)] * 4))
