"""CLIP of transformers with random weights, as a folder that it reads and writes, without it."""

import json

import numpy as np
from safetensors.numpy import save_file

from mae_jax.data.vocabulary import of_words

WORDS = of_words(("a", "photo", "of", "cat", "dog", "red", "small"))
IMAGE, PATCH, LENGTH, EMBEDDING = 8, 4, 7, 6
VISION = dict(hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2)
TEXT = dict(hidden_size=12, intermediate_size=48, num_hidden_layers=1, num_attention_heads=3)
PROCESSOR = dict(
    image_processor_type="CLIPImageProcessor",
    do_resize=True,
    size=dict(shortest_edge=IMAGE),
    resample=3,
    do_center_crop=True,
    crop_size=dict(height=IMAGE, width=IMAGE),
    do_rescale=True,
    rescale_factor=1 / 255,
    do_normalize=True,
    image_mean=[0.5, 0.4, 0.3],
    image_std=[0.2, 0.25, 0.3],
)


def config(vision: str = "quick_gelu", text: str = "gelu") -> dict:
    """config.json of a `CLIPModel` with these activations."""
    more = dict(hidden_act=vision, layer_norm_eps=1e-5, image_size=IMAGE, patch_size=PATCH)
    texts = dict(hidden_act=text, layer_norm_eps=1e-6, vocab_size=len(WORDS))
    texts |= dict(max_position_embeddings=LENGTH, eos_token_id=WORDS.special["end"])
    return dict(
        architectures=["CLIPModel"],
        model_type="clip",
        projection_dim=EMBEDDING,
        vision_config=VISION | more | dict(projection_dim=EMBEDDING, num_channels=3),
        text_config=TEXT | texts | dict(projection_dim=EMBEDDING),
    )


def shapes() -> dict[str, tuple[int, ...]]:
    """Name of each array of a `CLIPModel` -> its shape."""
    found = {"logit_scale": ()}
    for part, sizes in (("vision_model", VISION), ("text_model", TEXT)):
        width, hidden = sizes["hidden_size"], sizes["intermediate_size"]
        layers = {f"self_attn.{name}_proj": (width, width) for name in ("q", "k", "v", "out")}
        layers |= {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
        layers |= {"layer_norm1": (width,), "layer_norm2": (width,)}
        for i in range(sizes["num_hidden_layers"]):
            for layer, shape in layers.items():
                name = f"{part}.encoder.layers.{i}.{layer}"
                found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        projection = "visual" if part == "vision_model" else "text"
        found[f"{projection}_projection.weight"] = (EMBEDDING, width)
    width, embeddings = VISION["hidden_size"], "vision_model.embeddings"
    found[f"{embeddings}.class_embedding"] = (width,)
    found[f"{embeddings}.patch_embedding.weight"] = (width, 3, PATCH, PATCH)
    found[f"{embeddings}.position_embedding.weight"] = (1 + (IMAGE // PATCH) ** 2, width)
    embeddings, words = "text_model.embeddings", TEXT["hidden_size"]
    found[f"{embeddings}.token_embedding.weight"] = (len(WORDS), words)
    found[f"{embeddings}.position_embedding.weight"] = (LENGTH, words)
    norms = {"vision_model.pre_layrnorm": width, "vision_model.post_layernorm": width}
    for norm, size in (norms | {"text_model.final_layer_norm": words}).items():
        found |= {f"{norm}.weight": (size,), f"{norm}.bias": (size,)}
    return found


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights."""
    rng = np.random.default_rng(seed)
    draw = lambda shape: rng.normal(size=shape, scale=0.3).astype(np.float32)
    return {name: draw(shape) for name, shape in sorted(shapes().items())}


def write(path, weights, settings, *, processor=PROCESSOR, tokenizer=WORDS):
    """A folder of Hugging Face."""
    path.mkdir()
    save_file(weights, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(settings))
    if processor:
        (path / "preprocessor_config.json").write_text(json.dumps(processor))
    if tokenizer:
        tokenizer.save(path / "tokenizer.json")
    return path


def batch(size: int = IMAGE) -> dict[str, np.ndarray]:
    """Images, and texts of 7, 5 and 3 tokens with their begin and end."""
    rng, special = np.random.default_rng(1), WORDS.special
    counts = np.array([7, 5, 3])
    text = rng.integers(5, len(WORDS), (3, LENGTH)).astype(np.int32)
    text[:, 0], text[np.arange(3), counts - 1] = special["begin"], special["end"]
    valid = np.arange(LENGTH) < counts[:, None]
    return {
        "image": rng.integers(0, 256, (3, size, size, 3)).astype(np.uint8),
        "text": np.where(valid, text, 0).astype(np.int32),
        "text_valid": valid,
    }
