"""ViTDet: equal to transformers' VitDetModel, whose random weights are taken over; windows and
relative positions equal to loops in float64.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from mae_jax.engine.mesh import make_mesh
from mae_jax.models import vit, vitdet
from mae_jax.models.vitdet import partition, unpartition
from mae_jax.types import UserError

SHAPE = dict(width=8, depth=3, heads=2, patch=4, window=3, global_blocks=1, position_grid=2)


def random_like(tree, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) / 2, tree)


def abstract(network, images):
    return jax.eval_shape(network.init, jax.random.key(0), images)


def images_of(rows, columns, seed=0):
    return np.random.default_rng(seed).normal(size=(2, rows, columns, 3)).astype(np.float32)


def params_of(theirs):
    """Weights of a VitDetModel in our layout."""
    state = {name: x.numpy() for name, x in theirs.state_dict().items()}
    norm = lambda name: dict(scale=state[f"{name}.weight"], bias=state[f"{name}.bias"])
    dense = lambda name: dict(kernel=state[f"{name}.weight"].T, bias=state[f"{name}.bias"])
    kernel = state["embeddings.projection.weight"]  # [D, C, row, column]
    embed = dict(kernel=kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel)))
    params = dict(embed=embed | dict(bias=state["embeddings.projection.bias"]))
    params["positions"] = state["embeddings.position_embeddings"][0, 1:]
    for i in range(theirs.config.num_hidden_layers):
        at = f"encoder.layer.{i}"
        attention = dict(
            qkv=dense(f"{at}.attention.qkv"),
            proj=dense(f"{at}.attention.proj"),
            relative_rows=state[f"{at}.attention.rel_pos_h"],
            relative_columns=state[f"{at}.attention.rel_pos_w"],
        )
        params[f"block_{i}"] = dict(
            norm1=norm(f"{at}.norm1"),
            attention=attention,
            norm2=norm(f"{at}.norm2"),
            mlp=dict(fc1=dense(f"{at}.mlp.fc1"), fc2=dense(f"{at}.mlp.fc2")),
        )
    return params


THOROUGH = pytest.mark.thorough


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(12, 20), pytest.param(20, 20, marks=THOROUGH), pytest.param(28, 24, marks=THOROUGH)],
)
def test_it_is_that_of_transformers(rows, columns):
    """Of square images and others, whose grids are padded to whole windows; after its position
    tables were resized, too.
    """
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.VitDetConfig(
        hidden_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=(20, 20),
        pretrain_image_size=8,
        patch_size=4,
        window_block_indices=[0, 1],
        use_relative_position_embeddings=True,
        window_size=3,
    )
    torch.manual_seed(0)
    theirs = transformers.VitDetModel(config).eval()
    for tensor in theirs.parameters():
        tensor.data = torch.randn(tensor.shape) / 2
    images = images_of(rows, columns)
    with torch.no_grad():
        expected = theirs(torch.tensor(images.transpose(0, 3, 1, 2))).last_hidden_state.numpy()
    network, params = vitdet.make(**SHAPE).clone(grid=(5, 5)), params_of(theirs)
    shapes = jax.tree.map(np.shape, abstract(network, images_of(20, 20))["params"])
    assert shapes == jax.tree.map(np.shape, params)
    run = jax.jit(functools.partial(network.apply, method="maps"))
    (found,) = run({"params": params}, images)
    np.testing.assert_allclose(found, expected.transpose(0, 2, 3, 1), atol=2e-4, rtol=1e-4)


def test_attention_with_relative_positions_is_a_loop():
    """On a grid that is no square, with every kernel that runs here."""
    rows, columns, heads, size = 2, 3, 2, 4
    x = np.random.default_rng(0).normal(size=(1, rows, columns, 8)).astype(np.float32)
    layer = vitdet.Attention(heads, (rows, columns))
    variables = random_like(abstract(layer, x), 1)
    params = jax.tree.map(lambda y: y.astype(np.float64), variables["params"])
    qkv = x[0].astype(np.float64) @ params["qkv"]["kernel"] + params["qkv"]["bias"]
    query, key, value = (y.reshape(rows, columns, heads, size) for y in np.split(qkv, 3, axis=-1))
    mixed = np.zeros((rows, columns, heads, size))
    for i, j, h in np.ndindex(rows, columns, heads):
        logits = np.zeros((rows, columns))
        for a, b in np.ndindex(rows, columns):
            bias = params["relative_rows"][i - a + rows - 1]
            bias = bias + params["relative_columns"][j - b + columns - 1]
            logits[a, b] = query[i, j, h] @ (key[a, b, h] / np.sqrt(size) + bias)
        weights = np.exp(logits - logits.max())
        mixed[i, j, h] = np.einsum("ab,abd->d", weights / weights.sum(), value[:, :, h])
    expected = mixed.reshape(rows, columns, 8) @ params["proj"]["kernel"] + params["proj"]["bias"]
    for kind in ("xla", "blockwise"):
        found = jax.jit(layer.clone(attention=kind).apply)(variables, x)[0]
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_windows_of_the_published_size_fit_the_kernel_for_tpus():
    """Their queries have more channels than their values."""
    layer = vitdet.Attention(12, (14, 14), jnp.bfloat16, "pallas")
    chip = jax.sharding.AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu")
    mesh = make_mesh(devices=jax.devices()[:1]).abstract_mesh.update(abstract_device=chip)
    x = jax.ShapeDtypeStruct((25, 14, 14, 768), jnp.bfloat16)
    with jax.sharding.use_abstract_mesh(mesh):
        found, _ = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    assert found.shape == x.shape and found.dtype == x.dtype


@pytest.mark.parametrize("grid", [(3, 5), (4, 4), (2, 7), (1, 1)])
def test_windows_are_rows_and_columns_of_the_map(grid):
    x = np.random.default_rng(0).normal(size=(2, *grid, 3)).astype(np.float32)
    windows = np.asarray(partition(x, (2, 3)))
    tall, wide = -(-grid[0] // 2), -(-grid[1] // 3)
    windows = windows.reshape(2, tall, wide, 2, 3, 3)
    for image, row, column in np.ndindex(2, 2 * tall, 3 * wide):
        inside = row < grid[0] and column < grid[1]
        expected = x[image, row, column] if inside else 0
        found = windows[image, row // 2, column // 3, row % 2, column % 3]
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(unpartition(partition(x, (2, 3)), x.shape), x)


def test_weights_of_a_vit_fit_and_without_windows_it_is_that_vit():
    """Relative positions, which start at zero, are the only new parameters."""
    images = images_of(8, 8)
    plain = vit.make(width=8, depth=2, heads=2, patch=4, learned_positions=True, final_norm=False)
    network = vitdet.make(**SHAPE | dict(depth=2, global_blocks=2))
    assert network.architecture == plain.architecture
    initial = flatten_dict(jax.jit(network.init)(jax.random.key(0), images)["params"])
    trained = random_like(abstract(plain.clone(class_tokens=0), images)["params"])
    old = flatten_dict(trained)
    new = initial.keys() - old.keys()
    assert all(name[-1].startswith("relative_") and not initial[name].any() for name in new)
    assert len(new) == 4 and old.keys() <= initial.keys()
    merged = unflatten_dict(initial | old)
    expected = jax.jit(plain.clone(class_tokens=0).apply)({"params": trained}, images)
    found = jax.jit(network.apply)({"params": merged}, images)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_layer_is_an_encoder_that_ends_there():
    network, images = vitdet.make(**SHAPE), images_of(8, 12)
    params = random_like(abstract(network, images)["params"])
    tokens = functools.partial(network.apply, layers=(1, 2), method="layer_tokens")
    second, last = jax.jit(tokens)({"params": params}, images)
    shorter = vitdet.make(**SHAPE | dict(depth=2, global_blocks=0))
    rest = {name: leaf for name, leaf in params.items() if name != "block_2"}
    expected = jax.jit(shorter.apply)({"params": rest}, images)
    np.testing.assert_allclose(second, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(last, jax.jit(network.apply)({"params": params}, images))
    assert network.layers == 3 and second.shape == (2, 6, 8)


def test_global_blocks_are_the_published_ones():
    assert vitdet.make("B").global_indices == (2, 5, 8, 11)
    assert vitdet.make("L").global_indices == (5, 11, 17, 23)
    assert vitdet.make("H").global_indices == (7, 15, 23, 31)


def test_training_drops_paths_and_reaches_all_parameters():
    """Rematerialized."""
    options = SHAPE | dict(depth=2, drop_path=0.3, remat="full")
    network, images = vitdet.make(**options), images_of(16, 20)
    variables = random_like(abstract(network, images))

    def loss(variables, key):
        (x,) = network.apply(variables, images, train=True, method="maps", rngs={"drop_path": key})
        return (x**2).mean()

    run = jax.jit(jax.value_and_grad(loss))
    (one, gradient), (other, _) = (run(variables, jax.random.key(i)) for i in (3, 1))
    assert one != other
    for path, x in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(x).all() and x.any(), jax.tree_util.keystr(path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(window=0), "must be positive"),
        (dict(global_blocks=4), "global_blocks=4 is outside .0, 3., its depth"),
        (dict(drop_path=1.0), "drop_path=1.0 is outside"),
        (dict(heads=3), "must be a multiple of its 3 heads"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        vitdet.make(**SHAPE | options)
    with pytest.raises(UserError, match="size 'X' is unknown"):
        vitdet.make("X")
