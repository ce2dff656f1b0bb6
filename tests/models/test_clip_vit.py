"""Both towers of CLIP, against `CLIPModel` of Hugging Face transformers with random weights; and
what padding changes in a text tower.
"""

import functools

import jax
import numpy as np
import pytest

from mae_jax.methods import clip
from mae_jax.models import text_tower
from mae_jax.types import UserError
from tests.helpers.compiled import noise_like

WIDTH, DEPTH, HEADS, LENGTH, WORDS = 16, 2, 2, 7, 20
END = 19
"""Number of the end token, the largest one, at which CLIP pools."""


def make_method():
    """CLIP with towers of its layout."""
    return clip.make(
        vocabulary=WORDS,
        length=LENGTH,
        encoder=f"clip_vit(width={WIDTH}, depth={DEPTH}, heads={HEADS}, patch=4)",
        text=f"text_tower(width={WIDTH}, depth={DEPTH}, heads={HEADS}, causal=True, pool=last, "
        "activation=quick_gelu, epsilon=1e-5)",
        embedding=6,
        mask_ratio=0.0,
        tuning_share=0.0,
        pool="cls",
    )


def reference(torch, transformers):
    """The model of transformers, with random weights in float64."""
    shape = dict(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        projection_dim=6,
    )
    config = transformers.CLIPConfig(
        text_config=shape
        | dict(vocab_size=WORDS, max_position_embeddings=LENGTH, eos_token_id=END, bos_token_id=1),
        vision_config=shape | dict(image_size=8, patch_size=4),
        projection_dim=6,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    model = transformers.CLIPModel(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model


def block(theirs, name):
    """The arrays of one block."""
    array = lambda key: theirs[f"{name}.{key}"].numpy()
    matrix = lambda key: {"kernel": array(f"{key}.weight").T, "bias": array(f"{key}.bias")}
    norm = lambda key: {"scale": array(f"{key}.weight"), "bias": array(f"{key}.bias")}
    parts = [matrix(f"self_attn.{part}_proj") for part in "qkv"]
    joined = {key: np.concatenate([part[key] for part in parts], -1) for key in parts[0]}
    return {
        "attention": {"qkv": joined, "proj": matrix("self_attn.out_proj")},
        "norm1": norm("layer_norm1"),
        "norm2": norm("layer_norm2"),
        "mlp": {"fc1": matrix("mlp.fc1"), "fc2": matrix("mlp.fc2")},
    }


def ours_of(theirs):
    """The parameters of `clip` with the arrays of `CLIPModel`."""
    norm = lambda key: {"scale": theirs[f"{key}.weight"], "bias": theirs[f"{key}.bias"]}
    blocks = lambda part: {
        f"block_{i}": block(theirs, f"{part}.encoder.layers.{i}") for i in range(DEPTH)
    }
    vision, text = "vision_model", "text_model"
    patches = theirs[f"{vision}.embeddings.patch_embedding.weight"]  # [D, C, 4, 4]
    return {
        "encoder": {
            "cls_token": theirs[f"{vision}.embeddings.class_embedding"][None, None],
            "positions": theirs[f"{vision}.embeddings.position_embedding.weight"],
            "embed": {
                "kernel": patches.permute(2, 3, 1, 0).reshape(-1, WIDTH),
                "bias": np.zeros(WIDTH),
            },
            "input_norm": norm(f"{vision}.pre_layrnorm"),
            "norm": norm(f"{vision}.post_layernorm"),
            **blocks(vision),
        },
        "text": {
            "table": theirs[f"{text}.embeddings.token_embedding.weight"],
            "positions": theirs[f"{text}.embeddings.position_embedding.weight"],
            "norm": norm(f"{text}.final_layer_norm"),
            **blocks(text),
        },
        "image_projection": {"kernel": theirs["visual_projection.weight"].T},
        "text_projection": {"kernel": theirs["text_projection.weight"].T},
        "logit_scale": theirs["logit_scale"],
    }


def make_batch():
    """Images, and texts of 7, 5 and 3 tokens with their end."""
    rng = np.random.default_rng(0)
    text = rng.integers(2, END, (3, LENGTH)).astype(np.int32)
    counts = np.array([7, 5, 3])
    valid = np.arange(LENGTH) < counts[:, None]
    text[np.arange(3), counts - 1] = END
    return {
        "image": rng.integers(0, 256, (3, 8, 8, 3)).astype(np.uint8),
        "text": np.where(valid, text, 0).astype(np.int32),
        "text_valid": valid,
    }


@pytest.mark.thorough  # importing transformers takes seconds
def test_the_towers_are_those_of_clip():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model, method, batch = reference(torch, transformers), make_method(), make_batch()
    theirs = {name: array.detach() for name, array in model.state_dict().items()}
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), ours_of(theirs))
    shapes = jax.eval_shape(method.init, jax.random.key(0), batch)[0]
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes)
    images = torch.tensor((batch["image"] / 255 - 0.5) / 0.25).permute(0, 3, 1, 2)
    with torch.no_grad():
        found = model(
            pixel_values=images,
            input_ids=torch.tensor(batch["text"]).long(),
            attention_mask=torch.tensor(batch["text_valid"]).long(),
        )
        classes = found.vision_model_output.last_hidden_state[:, 0]
        classes = model.vision_model.post_layernorm(classes)
    outputs = ("features", "text_features", "image_embedding", "text_embedding")
    run = jax.jit(functools.partial(method.predict, outputs=outputs))
    ours = jax.device_get(run(params, {}, batch))
    ends = found.text_model_output.last_hidden_state[np.arange(3), [6, 4, 2]]
    expected = (classes, ends, found.image_embeds, found.text_embeds)
    for name, array in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(ours[name], array.numpy(), rtol=2e-4, atol=2e-5, err_msg=name)


@functools.cache
def features(pool, causal):
    """Compiled text tower and its parameters: text, valid -> features."""
    tower = text_tower.make(
        vocabulary=WORDS, length=LENGTH, width=8, depth=1, heads=2, pool=pool, causal=causal
    )
    batch = make_batch()
    params = noise_like(tower.init, jax.random.key(0), batch["text"], batch["text_valid"])
    compiled = jax.jit(tower.apply)
    return lambda text, valid: np.asarray(compiled(params, text, valid))


@pytest.mark.parametrize(
    ("pool", "causal"), [("first", False), ("last", False), ("last", True), ("mean", False)]
)
def test_padding_changes_no_bit_of_the_features_of_a_text(pool, causal):
    batch, run = make_batch(), features(pool, causal)
    text, valid = batch["text"], batch["text_valid"]
    changed = np.where(valid, text, 5)
    np.testing.assert_array_equal(run(changed, valid), run(text, valid))
    first = text.copy()
    first[:, 0] = (first[:, 0] + 1) % WORDS
    assert np.abs(run(first, valid) - run(text, valid)).max(axis=1).min() > 1e-4


def test_refusals():
    with pytest.raises(UserError, match="clip_vit: activation"):
        clip.make(vocabulary=9, encoder="clip_vit(B, activation=relu)")
    with pytest.raises(UserError, match="epsilon=0 must be positive"):
        clip.make(vocabulary=9, encoder="clip_vit(B, epsilon=0)")
