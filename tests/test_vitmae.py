"""The whole masked autoencoder against an independent implementation, `ViTMAEForPreTraining` of
Hugging Face transformers, with the same weights: loss, prediction, features and every gradient.

The reference's results come from `golden/` (see the README there), and in thorough tests, where
torch and transformers are installed, also from larger models made on the spot. `pytest -sv` prints
the errors.
"""

import importlib.util
import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.models.mae import MAE, Decoder
from mae_jax.models.vit import ViT
from mae_jax.ops import losses, masking
from mae_jax.ops.patches import grid_of, patchify
from mae_jax.ops.posemb import sincos

HERE = Path(__file__).parent


def load(path: Path):
    """A Python file as a module, wherever it is."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


weights = load(HERE / "helpers" / "vitmae_weights.py")
GOLDEN = ["pixels", "normalized", "one_channel", "wide"]
LIVE = {
    "live_normalized": dict(
        image_size=(32, 32),
        patch=4,
        channels=3,
        encoder=(96, 3, 6),
        decoder=(64, 2, 4),
        mask_ratio=0.75,
        norm_pix_loss=True,
    ),
    "live_wide": dict(
        image_size=(16, 64),
        patch=4,
        channels=4,
        encoder=(96, 2, 3),
        decoder=(64, 2, 8),
        mask_ratio=0.9,
        norm_pix_loss=False,
    ),
}


class Ours(NamedTuple):
    """What our code makes of the reference's inputs."""

    loss: jax.Array
    prediction: jax.Array
    gradients: dict
    features: jax.Array


THOROUGH = [pytest.param(name, marks=pytest.mark.thorough) for name in LIVE]


@pytest.fixture(scope="module", params=[*GOLDEN, *THOROUGH])
def reference(request):
    """The arrays that `record` of golden/make_vitmae.py describes."""
    if request.param in GOLDEN:
        with np.load(HERE / "golden" / f"vitmae_{request.param}.npz") as arrays:
            return dict(arrays)
    reason = "the live comparison needs torch and transformers"
    pytest.importorskip("torch", reason=reason)
    pytest.importorskip("transformers", minversion="5.23", reason=reason)
    script = load(HERE / "golden" / "make_vitmae.py")
    return script.record(script.config_of(**LIVE[request.param]), seed=100)


@pytest.fixture(scope="module")
def config(reference):
    return json.loads(str(reference["config"]))


@pytest.fixture(scope="module")
def images(reference):
    return jnp.asarray(reference["images"].transpose(0, 2, 3, 1))


@pytest.fixture(scope="module")
def grid(config):
    return grid_of(tuple(config["image_size"]), config["patch_size"])


@pytest.fixture(scope="module")
def mask(reference, config, grid):
    visible = masking.num_visible(grid[0] * grid[1], config["mask_ratio"])
    return masking.from_scores(jnp.asarray(reference["noise"]), visible)


@pytest.fixture(scope="module")
def model(config):
    encoder = ViT(
        width=config["hidden_size"],
        depth=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        patch=config["patch_size"],
    )
    decoder = Decoder(
        width=config["decoder_hidden_size"],
        depth=config["decoder_num_hidden_layers"],
        heads=config["decoder_num_attention_heads"],
    )
    return MAE(encoder, decoder)


@pytest.fixture(scope="module")
def ours(reference, config, images, mask, model):
    def loss(params, images):
        prediction = model.apply({"params": params}, images, mask)
        target = patchify(images, config["patch_size"])
        if config["norm_pix_loss"]:
            target = losses.normalize_patches(target)
        return losses.masked_mean(losses.errors(prediction, target, "mse"), mask.mask), prediction

    @jax.jit
    def everything(params, images):
        (value, prediction), gradients = jax.value_and_grad(loss, has_aux=True)(params, images)
        features = model.encoder.apply({"params": params["encoder"]}, images)
        return Ours(value, prediction, gradients, features)

    with jax.default_matmul_precision("highest"):
        return jax.device_get(everything(tree_of(reference, "weight", config), images))


def trained(reference, kind: str) -> dict[str, np.ndarray]:
    """The reference's trained 'weight's or their 'gradient's, by torch names."""
    names = {name.removeprefix(f"{kind}/"): name for name in reference if name.startswith(kind)}
    return {short: reference[name] for short, name in names.items() if short not in weights.FIXED}


def tree_of(reference, kind: str, config) -> dict:
    """The reference's 'weight's or 'gradient's as our tree."""
    depths = config["num_hidden_layers"], config["decoder_num_hidden_layers"]
    return weights.from_torch(trained(reference, kind), *depths)


def leaves_of(tree) -> dict:
    """The leaves by their path, queries, keys and values apart."""
    leaves = {}
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        path = jax.tree_util.keystr(key_path, simple=True, separator="/")
        if "/qkv/" in path:
            for part, piece in zip("qkv", np.split(leaf, 3, axis=-1), strict=True):
                leaves[path.replace("/qkv/", f"/{part}/")] = piece
        else:
            leaves[path] = leaf
    return leaves


def largest(x) -> float:
    return float(np.max(np.abs(x)))


@pytest.mark.slow
def test_both_train_the_same_parameters(reference, config, images, mask, model):
    fresh = jax.eval_shape(model.init, jax.random.key(0), images, mask)["params"]
    shapes = lambda tree: jax.tree.map(np.shape, tree)
    assert shapes(fresh) == shapes(tree_of(reference, "weight", config))
    assert shapes(fresh) == shapes(tree_of(reference, "gradient", config))


def test_positions(reference, config, grid):
    for name, width in (
        ("vit.embeddings.position_embeddings", config["hidden_size"]),
        ("decoder.decoder_pos_embed", config["decoder_hidden_size"]),
    ):
        theirs = reference[f"weight/{name}"][0]
        np.testing.assert_array_equal(theirs[0], 0)  # the class token has none
        np.testing.assert_allclose(sincos(grid, width), theirs[1:], rtol=0, atol=1.2e-7)


def test_mask(reference, mask):
    np.testing.assert_array_equal(mask.mask, reference["mask"])
    np.testing.assert_array_equal(mask.restore, reference["restore"])


def test_loss_and_prediction(reference, ours):
    """float32 against float64: a few units in the last place, grown by the depth."""
    for name in ("loss", "prediction", "features"):
        error, scale = largest(getattr(ours, name) - reference[name]), largest(reference[name])
        print(f"\n{name}: error {error:.1e}, largest {scale:.1e}", end="")
        assert error <= 3e-6 * scale, f"{name}: error {error:.1e}, largest {scale:.1e}"


def test_gradients(reference, config, ours):
    """Each leaf against its own largest value.

    A bias on the keys adds the same to all logits of a query, which the softmax ignores: its
    gradient is zero but for rounding. Having no scale of its own, it takes that of the queries'.
    """
    theirs = leaves_of(tree_of(reference, "gradient", config))
    mine = leaves_of(ours.gradients)
    assert set(mine) == set(theirs)
    wrong = []
    for path, gradient in theirs.items():
        error = largest(mine[path] - gradient)
        scale = largest(theirs[path.replace("/k/bias", "/q/bias")])
        print(f"\n{path:40} error {error:.1e}, scale {scale:.1e}", end="")
        if not error <= 5e-6 * scale:
            wrong.append(f"{path}: error {error:.1e}, scale {scale:.1e}")
    assert not wrong, "\n".join(wrong)
