"""Guided masks: the selection, shares that change over the run, attention and loading of a teacher,
against float64 numpy.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mae_jax import masks, plan, weights
from mae_jax.config import load_config
from mae_jax.masks import MaskContext, guided, make_strategy
from mae_jax.methods import mae
from mae_jax.ops import masking
from mae_jax.ops.pixels import normalize
from mae_jax.ops.posemb import with_prefix
from mae_jax.run import build
from mae_jax.types import UserError
from tests.helpers import plain_vit
from tests.helpers.runs import ROOT
from tests.weights import models

KEY = jax.random.key(3)
VIT = "vit(width=16, depth=2, heads=2, patch=4)"
CONV = "convnext(widths=(8, 16), depths=(1, 1), stem=2, kernel=3)"
STUDENT = dict(
    encoder="vit(width=16, depth=1, heads=2, patch=4)",
    **dict(decoder_width=8, decoder_depth=1, decoder_heads=2),
)


def hidden_by_loops(guide, noise, masked, count, hint):
    """Set of masked patches of one example, by sorting Python numbers."""
    length = len(guide)
    chosen = sorted(range(length), key=lambda i: (guide[i], i))[length - count :]
    shown = sorted(chosen, key=lambda i: noise[i])[: math.floor(hint * count + 1e-9)]
    first = sorted(set(chosen) - set(shown), key=lambda i: -noise[i])
    others = sorted(set(range(length)) - set(chosen), key=lambda i: -noise[i])
    return set([*first, *others, *sorted(shown, key=lambda i: -noise[i])][:masked])


@pytest.mark.parametrize("hint", [0.0, 0.3])
def test_the_guide_chooses_a_share_and_the_rest_is_random(hint):
    """With ties, and also where more patches are chosen than masked."""
    length, masked = 20, 14
    guide = np.random.default_rng(0).integers(0, 12, (8, length)).astype(np.float32)

    @jax.jit
    def draw(count):
        scores = masking.guided(KEY, guide, count, hint=hint)
        return masking.from_scores(scores, length - masked).mask, scores

    noise = np.asarray(jax.random.uniform(KEY, guide.shape), np.float64)
    for count in (0, 1, 7, 14, 20):  # one traced function for all
        mask, scores = draw(count)
        assert scores.dtype == jnp.float32
        for row, values, numbers in zip(np.asarray(mask), guide, noise):
            expected = hidden_by_loops(values.tolist(), numbers.tolist(), masked, count, hint)
            assert set(np.flatnonzero(row)) == expected


@pytest.mark.parametrize(("start", "end", "unit"), [(0.0, 0.5, 1), (0.9, 0.3, 2)])
def test_the_share_moves_over_the_run_and_the_number_of_visible_patches_does_not(start, end, unit):
    grid, fine, steps, ratio = (4, 6), (8, 12), 50, 0.7
    side = (4, 6) if unit == 1 else (2, 3)
    guide = np.random.default_rng(1).normal(size=(5, *fine)).astype(np.float32)
    strategy = make_strategy(f"hard(start={start}, end={end}, unit={unit})")

    @jax.jit
    def draw(step):
        context = MaskContext(
            grid=grid, batch=5, step=step, total_steps=steps, guide=lambda: jnp.asarray(guide)
        )
        return masks.sample(KEY, strategy, context, ratio)

    cells = guide.astype(np.float64).reshape(5, side[0], 8 // side[0], side[1], 12 // side[1])
    cells = cells.mean(axis=(2, 4)).reshape(5, -1)
    masked = cells.shape[1] - math.floor(cells.shape[1] * (1 - ratio) + 1e-9)
    counts = set()
    for step in (0, 7, 25, 49, 50, 80):
        mask = draw(step)
        assert mask.keep.shape == (5, 7) and (np.asarray(mask.mask).sum(axis=1) == 17).all()
        count = math.floor((start + (end - start) * min(step / steps, 1)) * masked + 1e-9)
        hardest = np.argsort(cells, axis=1)[:, cells.shape[1] - count :]
        hidden = np.asarray(mask.mask).reshape(5, side[0], unit, side[1], unit).all(axis=(2, 4))
        assert np.take_along_axis(hidden.reshape(5, -1), hardest, axis=1).all()
        counts.add(count)
    assert len(counts) >= 3


def test_guides_of_a_finer_grid_are_averaged():
    scores = np.random.default_rng(0).normal(size=(2, 4, 6, 2))
    expected = scores.reshape(2, 2, 2, 3, 2, 1, 2).mean(axis=(2, 4, 6))
    np.testing.assert_allclose(guided.pooled(jnp.asarray(scores), (2, 3, 1)), expected, atol=1e-6)
    with pytest.raises(UserError, match="the mask has 3 x 3 x 1 patches and its guide 4 x 6 x 2"):
        guided.pooled(jnp.asarray(scores), (3, 3, 1))
    with pytest.raises(UserError, match="which must be multiples: choose another patch"):
        guided.pooled(jnp.asarray(scores), (4, 6))


def random_params(encoder, images, rng):
    """Parameters with biases that are not zero."""
    shapes = jax.eval_shape(encoder.init, KEY, images)["params"]
    return jax.tree.map(lambda x: (rng.normal(size=x.shape) / 2).astype(np.float32), shapes)


def timm_names(params, prefix, grid):
    """The arrays of a ViT of patch 4 and 3 channels for `plain_vit`."""
    arrays = {"pos_embed": with_prefix(grid, 16, prefix)[None], "cls_token": np.zeros((1, 0, 16))}
    arrays |= {"cls_token": params["cls_token"]} if prefix else {}
    kernel = params["embed"]["kernel"].reshape(4, 4, 3, 16)
    arrays["patch_embed.proj.weight"] = kernel.transpose(3, 2, 0, 1)
    arrays["patch_embed.proj.bias"] = params["embed"]["bias"]
    for i in range(2):
        block = params[f"block_{i}"]
        layers = {
            "norm1": block["norm1"],
            "norm2": block["norm2"],
            "attn.qkv": block["attention"]["qkv"],
            "attn.proj": block["attention"]["proj"],
            "mlp.fc1": block["mlp"]["fc1"],
            "mlp.fc2": block["mlp"]["fc2"],
        }
        for name, layer in layers.items():
            weight = layer["scale"] if "norm" in name else layer["kernel"].T
            arrays |= {
                f"blocks.{i}.{name}.weight": weight,
                f"blocks.{i}.{name}.bias": layer["bias"],
            }
    return arrays


@pytest.mark.parametrize("prefix", [2, 0])
def test_the_guide_is_the_attention_in_the_last_block(prefix):
    """Of the class tokens, or of all patches where there are none."""
    rng = np.random.default_rng(prefix)
    images = rng.integers(0, 256, (2, 8, 12, 3)).astype(np.uint8)
    own = prefix == 2  # with statistics of its own
    text = f"attention('{VIT[:-1]}, class_tokens={prefix})'"
    strategy = make_strategy(f"{text}, mean=(0.4,), std=(0.2,))" if own else f"{text})")
    statistics = ((0.4,), (0.2,)) if own else ((0.5,), (0.3,))
    inputs = np.asarray(images / 255.0 - statistics[0][0]) / statistics[1][0]
    params = random_params(strategy.encoder, np.zeros((1, 8, 12, 3), np.float32), rng)

    def score(params):
        context = MaskContext(
            grid=(2, 3),
            batch=2,
            images=images,
            normalize=lambda x: normalize(x, (0.5,), (0.3,)),
            constants={"encoder": params},
        )
        return strategy.guide(context)

    attention = plain_vit.last_attention(timm_names(params, prefix, (2, 3)), inputs, heads=2)
    queries = attention[:, :, :prefix] if prefix else attention
    expected = queries[..., prefix:].mean(axis=(1, 2)).reshape(2, 2, 3)
    found = np.asarray(jax.jit(score)(params))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert expected.std() > 1e-3, "nothing to distinguish"


def test_a_teacher_is_a_part_of_the_state():
    """Also inside of units."""
    method = mae.make(**STUDENT, mask=f"attention({VIT!r}, hint=0.1, unit=2)", mask_ratio=0.5)
    batch = {"image": np.zeros((2, 16, 16, 3), np.uint8)}
    params, extra = jax.eval_shape(method.init, KEY, batch)
    assert extra["mask"]["encoder"]["block_1"]["mlp"]["fc1"]["kernel"].shape == (16, 64)
    assert method.loads().keys() == {"params/encoder", "extra/mask/encoder"}
    found = jax.eval_shape(method.loss, params, extra, batch, KEY, 0).extra
    assert jax.tree.structure(found) == jax.tree.structure(extra)
    assert jax.eval_shape(method.pictures(), params, extra, batch)["original"].shape[0] == 2


@pytest.mark.thorough
def test_a_teacher_is_loaded(tmp_path, monkeypatch):
    """Of another architecture than the encoder that learns; if it is not, the plan says so."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "example_project")
    model = models.mae(depth=1, image=(16, 16, 1), patch=8)
    weights.write_run(model, tmp_path / "teacher")
    config = load_config(str(ROOT / "tests" / "example_project" / "experiments.py") + ":image")
    config.data.update(train="example.waves(space=(16, 16))", test="")
    mask = "attention('vit(Ti, patch=8, depth=1)')"
    args = STUDENT | dict(encoder="vit(width=16, depth=1, heads=2, patch=8)", mask=mask)
    config.method = ConfigDict(dict(name="mae", args=args))
    config.evals.run = ""
    (line,) = (line for line in plan.lines(build(config)) if "extra/mask/encoder" in line)
    assert "they stay random" in line and "into=extra/mask/encoder" in line
    row = dict(path=str(tmp_path / "teacher"), into="extra/mask/encoder")
    config.init_from.teacher = row
    kernel = (
        build(config).loaded_state().extra["mask"]["encoder"]["block_0"]["mlp"]["fc1"]["kernel"]
    )
    np.testing.assert_array_equal(kernel, model.params["encoder/block_0/mlp/fc1/kernel"])
    config.method.args.mask = "attention('vit(Ti, patch=8, depth=1, heads=2)')"
    with pytest.raises(UserError, match="another architecture: .* config.method.args.mask=attent"):
        build(config).loaded_state()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("hard", "does not predict which patches are hard: set method.name=hpm"),
        ("hard(end=1.5)", r"mask hard: end=1.5 is outside \[0, 1\]"),
        (f"attention({VIT!r}, hint=-0.1)", r"mask attention: hint=-0.1 is outside \[0, 1\]"),
        (f"attention({VIT!r}, mean=(0.5,))", "give both, or neither"),
        (f"attention({VIT!r}, dtype=float16)", "dtype 'float16' is unknown"),
        (f"attention({VIT.replace('patch=4', 'patch=8')!r})", "4 x 4 patches and its guide 2 x 2"),
        (f"attention({CONV!r})", "encoders of the kind ConvNeXt have no attention"),
    ],
)
def test_mistakes_are_named(mask, message):
    images = jax.ShapeDtypeStruct((1, 16, 16, 3), np.uint8)
    with pytest.raises(UserError, match=message):
        method = mae.make(**STUDENT, mask=mask)
        jax.eval_shape(functools.partial(method.init, KEY), {"image": images})
