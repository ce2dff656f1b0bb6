"""MAE_ST's weights in and out: the predictions, loss and logits of a forward pass in float64 NumPy
that is written from its code, for random arrays with its names.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file
from scipy.special import erf

from mae_jax import weights
from mae_jax.methods import make_method
from mae_jax.methods.mae import make as make_mae
from mae_jax.ops import masking
from mae_jax.types import UserError
from mae_jax.weights.export import convert
from mae_jax.weights.model import Options
from mae_jax.workdir import read_config
from tests.helpers.commands import run

FRAMES, SIDE, STEPS, PATCH, CHANNELS = 6, 8, 2, 4, 3
GRID = (FRAMES // STEPS, SIDE // PATCH, SIDE // PATCH)
WIDTH, DEPTH, HEADS = 24, 2, 3
DECODER = dict(width=16, depth=1, heads=2)
OPTIONS = Options(heads=HEADS, decoder_heads=DECODER["heads"], target="normalized")


def transformer(rng, name, width):
    """Arrays of a block: queries, keys and values are separate layers."""
    found = {}
    for layer, (out, into) in {
        **{f"attn.{part}": (width, width) for part in ("q", "k", "v", "proj")},
        "mlp.fc1": (4 * width, width),
        "mlp.fc2": (width, 4 * width),
    }.items():
        found[f"{name}.{layer}.weight"] = rng.normal(0, 0.2, (out, into))
        found[f"{name}.{layer}.bias"] = rng.normal(0, 0.2, out)
    return found | normed(rng, f"{name}.norm1", width) | normed(rng, f"{name}.norm2", width)


def normed(rng, name, width):
    """Arrays of a LayerNorm."""
    return {f"{name}.weight": rng.normal(1, 0.2, width), f"{name}.bias": rng.normal(0, 0.2, width)}


def tokens(rng, start, width, cls):
    """Separate positions, and the class token."""
    shapes = dict(pos_embed_spatial=GRID[1] * GRID[2], pos_embed_temporal=GRID[0])
    shapes |= dict(cls_token=1, pos_embed_class=1) if cls else {}
    return {start + name: rng.normal(0, 0.5, (1, n, width)) for name, n in shapes.items()}


def encoder_arrays(rng, cls=True):
    """Arrays of the encoder."""
    kernel = (WIDTH, CHANNELS, STEPS, PATCH, PATCH)
    found = tokens(rng, "", WIDTH, cls) | normed(rng, "norm", WIDTH)
    found["patch_embed.proj.weight"] = rng.normal(0, 0.1, kernel)
    found["patch_embed.proj.bias"] = rng.normal(0, 0.2, WIDTH)
    for i in range(DEPTH):
        found |= transformer(rng, f"blocks.{i}", WIDTH)
    return found


def arrays_of(frames=1, cls=True, seed=0):
    """Arrays of a masked autoencoder that predicts so many frames of each patch, float32."""
    rng, width = np.random.default_rng(seed), DECODER["width"]
    found = encoder_arrays(rng, cls) | tokens(rng, "decoder_", width, cls)
    found["mask_token"] = rng.normal(0, 0.5, (1, 1, width))
    values = frames * PATCH**2 * CHANNELS
    for name, (out, into) in dict(embed=(width, WIDTH), pred=(values, width)).items():
        found[f"decoder_{name}.weight"] = rng.normal(0, 0.2, (out, into))
        found[f"decoder_{name}.bias"] = rng.normal(0, 0.2, out)
    for i in range(DECODER["depth"]):
        found |= transformer(rng, f"decoder_blocks.{i}", width)
    return as_float32(found | normed(rng, "decoder_norm", width))


def as_float32(arrays):
    """The arrays as a file holds them."""
    return {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}


class Reference:
    """The network in float64: sequences [N, D] of one clip."""

    def __init__(self, arrays):
        self.arrays = {name: np.float64(array) for name, array in arrays.items()}
        self.cls = "cls_token" in arrays

    def linear(self, name, x):
        return x @ self.arrays[f"{name}.weight"].T + self.arrays[f"{name}.bias"]

    def norm(self, name, x):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
        return x * self.arrays[f"{name}.weight"] + self.arrays[f"{name}.bias"]

    def block(self, name, x, heads):
        y = self.norm(f"{name}.norm1", x)
        q, k, v = (
            np.split(self.linear(f"{name}.attn.{part}", y), heads, axis=-1) for part in "qkv"
        )
        outputs = []
        for one, key, value in zip(q, k, v):
            logits = one @ key.T / np.sqrt(key.shape[1])
            shares = np.exp(logits - logits.max(-1, keepdims=True))
            outputs.append(shares / shares.sum(-1, keepdims=True) @ value)
        x = x + self.linear(f"{name}.attn.proj", np.concatenate(outputs, axis=-1))
        y = self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.norm2", x))
        return x + self.linear(f"{name}.mlp.fc2", y * (1 + erf(y / np.sqrt(2))) / 2)

    def positions(self, start):
        """[L, D], patches in the order time, row, column."""
        space, time = (
            self.arrays[f"{start}pos_embed_{part}"][0] for part in ("spatial", "temporal")
        )
        return np.stack([t + s for t in time for s in space])

    def with_class(self, start, x):
        """The sequence with the class token in front."""
        if not self.cls:
            return x
        names = (f"{start}cls_token", f"{start}pos_embed_class")
        return np.concatenate([sum(self.arrays[name][0] for name in names), x])

    def patches(self, clip):
        """Values [L, 24] of the convolution with as large a stride: clip [T, H, W, C]."""
        kernel, found = self.arrays["patch_embed.proj.weight"], []
        for t, y, x in np.ndindex(*GRID):
            cut = clip[STEPS * t :, PATCH * y :, PATCH * x :][:STEPS, :PATCH, :PATCH]
            found.append(np.einsum("dctyx,tyxc->d", kernel, cut))
        return np.stack(found) + self.arrays["patch_embed.proj.bias"]

    def encode(self, clip, visible):
        """Tokens of visible patches before the norm, without the class token."""
        x = (self.patches(clip) + self.positions(""))[visible]
        x = self.with_class("", x)
        for i in range(DEPTH):
            x = self.block(f"blocks.{i}", x, HEADS)
        return x[self.cls :]

    def predict(self, clip, visible):
        """Predictions [L, V] of all patches."""
        encoded = self.linear("decoder_embed", self.norm("norm", self.encode(clip, visible)))
        x = np.tile(self.arrays["mask_token"][0], (len(visible), 1))
        x[visible] = encoded
        x = self.with_class("decoder_", x + self.positions("decoder_"))
        for i in range(DECODER["depth"]):
            x = self.block(f"decoder_blocks.{i}", x, DECODER["heads"])
        return self.linear("decoder_pred", self.norm("decoder_norm", x))[self.cls :]

    def error(self, clip, visible, frames, normalized):
        """Mean error over masked patches."""
        chosen = np.linspace(0, FRAMES - 1, GRID[0] * frames).astype(int)
        clip, prediction, errors = clip[chosen], self.predict(clip, visible), []
        for n, (t, y, x) in enumerate(np.ndindex(*GRID)):
            target = clip[frames * t :, PATCH * y :, PATCH * x :][:frames, :PATCH, :PATCH].ravel()
            if normalized:
                target = (target - target.mean()) / np.sqrt(target.var(ddof=1) + 1e-6)
            if not visible[n]:
                errors.append(((prediction[n] - target) ** 2).mean())
        return np.mean(errors)

    def classify(self, clip):
        """Logits: the norm follows the mean over the patches."""
        x = self.encode(clip, np.ones(np.prod(GRID), bool)).mean(0)
        return self.linear("head", self.norm("norm", x))


CLIPS = np.random.default_rng(1).integers(0, 256, (2, FRAMES, SIDE, SIDE, CHANNELS), np.uint8)
VISIBLE = np.random.default_rng(2).permuted(np.tile(np.arange(12) < 4, (2, 1)), axis=1)
PIXELS = (CLIPS / 255 - 0.45) / 0.225


def saved(path, arrays):
    """A file of weights."""
    save_file(arrays, path)
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file as the published ones: one frame of two is predicted."""
    return saved(tmp_path_factory.mktemp("mae_st") / "published.safetensors", arrays_of())


def agrees(found, expected):
    """To float32's accuracy."""
    scale = np.abs(expected).max()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5 * scale, np.abs(found - expected).max() / scale


@pytest.mark.parametrize(
    ("frames", "cls", "target"), [(1, True, "normalized"), (2, False, "pixels")]
)
def test_the_loss_and_predictions_are_those_of_its_code(frames, cls, target, tmp_path, caplog):
    arrays = arrays_of(frames, cls)
    path = saved(tmp_path / "a.safetensors", arrays)
    model, table = weights.read(path, OPTIONS._replace(target=target))
    assert model.method == "mae" and model.image == (FRAMES, SIDE, SIDE, CHANNELS)
    assert not [row for row in table if row.theirs == "(created)" or "left over" in row.ours]
    assert "assuming MAE_ST's" in caplog.text
    method = make_method(name=model.method, args=model.args, total_steps=1)
    params = traverse_util.unflatten_dict(model.params, sep="/")

    @jax.jit
    def computed(params):
        mask = masking.from_scores(jnp.float32(~VISIBLE), 4)
        masked = method.reconstruct_for_loss(params, CLIPS, mask)
        loss = method.error(masked, {}, {"image": CLIPS}, mask)
        return method.reconstruct(params, CLIPS, mask), masked, loss

    with jax.default_matmul_precision("highest"):
        everything, masked, loss = jax.device_get(computed(params))
    reference = Reference(arrays)
    expected = np.stack([reference.predict(*pair) for pair in zip(PIXELS, VISIBLE)])
    agrees(everything, expected)
    agrees(masked, np.stack([one[~seen] for one, seen in zip(expected, VISIBLE)]))
    errors = [
        reference.error(*pair, frames, target == "normalized") for pair in zip(PIXELS, VISIBLE)
    ]
    np.testing.assert_allclose(loss, np.mean(errors), rtol=1e-5)


def test_they_go_back_bit_for_bit(published, tmp_path):
    model, _ = weights.read(published, OPTIONS)
    out = tmp_path / "out.safetensors"
    weights.write(model, out, "mae_st")
    arrays, written = load_file(published), load_file(out)
    assert written.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(written[name], array, err_msg=name)
    again, _ = weights.read(out)  # the file notes heads and target
    assert again.args == model.args and again.image == model.image


def test_commands_import_and_export_them(published, tmp_path, capsys):
    folder, out = tmp_path / "imported", tmp_path / "out.safetensors"
    heads = "--heads", HEADS, "--decoder-heads", DECODER["heads"]
    assert run("weights", "import", published, "--out", folder, *heads) == 0
    assert f"wrote {folder}: mae for 6 x 8 x 8 x 3 images" in capsys.readouterr().out
    assert read_config(folder).evals.figures == "film"
    assert run("weights", "export", "--run", folder, "--format", "mae_st", "--out", out) == 0
    arrays, written = load_file(published), load_file(out)
    for name, array in arrays.items():
        np.testing.assert_array_equal(written[name], array)


def test_files_without_a_description(published, caplog):
    model, _ = weights.read(published, OPTIONS._replace(target=None))
    assert model.args["target"] == "pixels(normalize=True, frames=1)"
    assert "assuming normalized pixels, as in the published models" in caplog.text
    assert model.args["mean"] == (0.45,) and model.args["mask_ratio"] == 0.9


def test_an_encoder_alone_and_without_biases(published, tmp_path):
    model, _ = weights.read(
        published, OPTIONS._replace(decoder_heads=None, target=None, encoder_only=True)
    )
    assert model.method == "tasks.encode" and model.args["pool"] == "mean"
    arrays = load_file(published)
    made = convert(model, "mae_st")
    for name, array in made.arrays.items():
        np.testing.assert_array_equal(array, arrays[name])
    plain = {k: v for k, v in arrays.items() if not k.endswith(("attn.q.bias", "k.bias", "v.bias"))}
    found, _ = weights.read(saved(tmp_path / "plain.safetensors", plain), OPTIONS)
    assert not found.params["encoder/block_1/attention/qkv/bias"].any()


def test_a_classifier(tmp_path):
    rng = np.random.default_rng(3)
    arrays = encoder_arrays(rng)
    arrays["head.weight"], arrays["head.bias"] = rng.normal(size=(5, WIDTH)), rng.normal(size=5)
    arrays = as_float32(arrays)
    path = saved(tmp_path / "classifier.safetensors", arrays)
    model, _ = weights.read(path, Options(heads=HEADS))
    assert model.method == "tasks.finetune" and model.args["classes"] == 5
    method = make_method(name=model.method, args=model.args, total_steps=1)
    params = traverse_util.unflatten_dict(model.params, sep="/")
    predict = jax.jit(lambda batch: method.predict(params, {}, batch, outputs=["logits"]))
    with jax.default_matmul_precision("highest"):
        found = jax.device_get(predict({"image": CLIPS}))["logits"]
    agrees(found, np.stack([Reference(arrays).classify(clip) for clip in PIXELS]))
    written = convert(model, "mae_st").arrays
    assert written.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(written[name], array)


def joint(arrays):
    """One table of positions."""
    found = {k: v for k, v in arrays.items() if "pos_embed" not in k}
    return found | {"pos_embed": np.zeros((1, 13, WIDTH), np.float32)}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (joint, {}, "one table of positions for space and time"),
        (lambda a: a, dict(image_size=(16, 16)), "--image-size is for images"),
        (lambda a: a, dict(heads=None), "no standard ViT has width 24"),
        (lambda a: a, dict(decoder_heads=None), "the number of heads of its decoder: pass --dec"),
        (
            lambda a: a | {"pos_embed_spatial": np.zeros((1, 6, WIDTH), np.float32)},
            {},
            "positions of 6 patches, which are no square",
        ),
        (
            lambda a: (
                a
                | {
                    "decoder_pred.weight": np.zeros((50, 16), np.float32),
                    "decoder_pred.bias": np.zeros(50, np.float32),
                }
            ),
            {},
            "predicts 50 values of each patch, which are no frames of 4 x 4 pixels",
        ),
    ],
)
def test_other_models_are_refused(published, tmp_path, change, options, message):
    path = saved(tmp_path / "other.safetensors", change(load_file(published)))
    with pytest.raises(UserError, match=message):
        weights.read(path, OPTIONS._replace(**options))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("decoder_positions", "sincos", "mae_st needs decoder_positions=separable"),
        ("decoder_class_tokens", False, "mae_st needs decoder_class_tokens=True"),
        ("decoder", "cross", "mae_st needs decoder=self"),
        ("target", "pixels(normalize=channels)", "only holds decoders of pixels"),
        (
            "encoder",
            f"vit(width={WIDTH}, depth=2, heads=3, patch=(2, 4, 4))",
            "positions=separable",
        ),
    ],
)
def test_other_runs_are_not_written(published, option, value, message):
    model, _ = weights.read(published, OPTIONS)
    with pytest.raises(UserError, match=message):
        convert(model._replace(args=model.args | {option: value}), "mae_st")
    with pytest.raises(UserError, match="the layout mae is for 2-D images"):
        convert(model, "mae")


def test_class_tokens_of_the_decoder_need_those_of_the_encoder():
    encoder = "vit(width=24, depth=1, heads=2, patch=4, class_tokens=0)"
    for args in (dict(encoder=encoder, pool="mean"), dict(decoder="cross")):
        with pytest.raises(UserError, match="decoder_class_tokens=True is for decoder=self and"):
            make_mae(**args, decoder_class_tokens=True)
