"""How others name the arrays of a vision transformer and of its decoder, a table for each layout.

- timm's `VisionTransformer` (pytorch-image-models, Apache 2.0), whose names the official code of
  MAE (arXiv 2111.06377) shares; it adds a decoder.
- Hugging Face transformers' ViTMAE and ViT, as their files on disk name them. Version 5 writes the
  decoder's blocks under another name, and reads both.
- Its BEiT, which is the same network with a norm after the mean over the patches, where a ViT reads
  the class token; its keys have no bias, which the softmax over them ignores anyway.
"""

from typing import NamedTuple

from mae_jax.weights.layout import Row, dense, norm

POSITIONS = "encoder/positions"
DECODER_POSITIONS = "decoder/positions"
"""Tables that are computed here, and stored there."""


def _block(ours: str, theirs: str) -> list[Row]:
    return [
        *norm(f"{ours}/norm1", f"{theirs}.norm1"),
        *dense(f"{ours}/attention/qkv", f"{theirs}.attn.qkv"),
        *dense(f"{ours}/attention/proj", f"{theirs}.attn.proj"),
        *norm(f"{ours}/norm2", f"{theirs}.norm2"),
        *dense(f"{ours}/mlp/fc1", f"{theirs}.mlp.fc1"),
        *dense(f"{ours}/mlp/fc2", f"{theirs}.mlp.fc2"),
    ]


class _Names(NamedTuple):
    """What Hugging Face calls the parts of a block."""

    blocks: str
    query: str
    key: str
    value: str
    proj: str
    fc1: str
    fc2: str


ON_DISK = _Names(
    "encoder.layer",
    "attention.attention.query",
    "attention.attention.key",
    "attention.attention.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
IN_MEMORY = _Names(
    "layers",
    "attention.q_proj",
    "attention.k_proj",
    "attention.v_proj",
    "attention.o_proj",
    "mlp.fc1",
    "mlp.fc2",
)
"""Of version 5, which some files have too."""


def _hf_block(ours: str, block: str, names: _Names, key_bias: bool = True) -> list[Row]:
    at = lambda name: f"{block}.{{}}.{name}"
    weights, biases = dense(f"{ours}/attention/qkv", *map(at, names[1:4]))
    if not key_bias:
        biases = biases._replace(theirs=(biases.theirs[0], "", biases.theirs[2]))
    return [
        *norm(f"{ours}/norm1", at("layernorm_before")),
        weights,
        biases,
        *dense(f"{ours}/attention/proj", at(names.proj)),
        *norm(f"{ours}/norm2", at("layernorm_after")),
        *dense(f"{ours}/mlp/fc1", at(names.fc1)),
        *dense(f"{ours}/mlp/fc2", at(names.fc2)),
    ]


def _hf_encoder(prefix: str, names: _Names = ON_DISK, key_bias: bool = True) -> list[Row]:
    embeddings = f"{prefix}embeddings"
    kernel, bias = dense("encoder/embed", f"{embeddings}.patch_embeddings.projection")
    return [
        Row("encoder/cls_token", (f"{embeddings}.cls_token",), "same"),
        Row(POSITIONS, (f"{embeddings}.position_embeddings",), "table"),
        kernel._replace(form="patch"),
        bias,
        *_hf_block("encoder/block_{}", f"{prefix}{names.blocks}", names, key_bias),
        *norm("encoder/norm", f"{prefix}layernorm"),
    ]


def _hf_decoder(blocks: str = "decoder_layers", names: _Names = ON_DISK) -> list[Row]:
    return [
        Row("decoder/mask_token", ("decoder.mask_token",), "same"),
        Row(DECODER_POSITIONS, ("decoder.decoder_pos_embed",), "table"),
        *dense("decoder/embed", "decoder.decoder_embed"),
        *_hf_block("decoder/block_{}", f"decoder.{blocks}", names),
        *norm("decoder/norm", "decoder.decoder_norm"),
        *dense("decoder/predict", "decoder.decoder_pred"),
    ]


TIMM = [
    Row("encoder/cls_token", ("cls_token",), "same"),
    Row(POSITIONS, ("pos_embed",), "table"),
    Row("encoder/embed/kernel", ("patch_embed.proj.weight",), "patch"),
    Row("encoder/embed/bias", ("patch_embed.proj.bias",), "same"),
    *_block("encoder/block_{}", "blocks.{}"),
    *norm("encoder/norm", "norm"),
    *norm("fc_norm", "fc_norm"),
    *dense("head", "head"),
]
MAE = [
    *TIMM,
    Row("decoder/mask_token", ("mask_token",), "same"),
    Row(DECODER_POSITIONS, ("decoder_pos_embed",), "table"),
    *dense("decoder/embed", "decoder_embed"),
    *_block("decoder/block_{}", "decoder_blocks.{}"),
    *norm("decoder/norm", "decoder_norm"),
    *dense("decoder/predict", "decoder_pred"),
]
HF_ENCODER = _hf_encoder("")
HF_HEAD = dense("head", "classifier")
HF_CLASSIFIER = [*_hf_encoder("vit."), *HF_HEAD]
HF_MAE = [*_hf_encoder("vit."), *_hf_decoder()]
HF_MEAN = [
    *(r for r in _hf_encoder("beit.", key_bias=False) if not r.ours.startswith("encoder/norm/")),
    *norm("fc_norm", "beit.pooler.layernorm"),
    *HF_HEAD,
]
READABLE = {
    "timm / official MAE": [MAE],
    "Hugging Face": [
        [*HF_MAE, *HF_HEAD],
        [*_hf_encoder("vit."), *_hf_decoder("decoder_encoder.layer")],
        [*_hf_encoder("vit.", IN_MEMORY), *_hf_decoder(names=IN_MEMORY), *HF_HEAD],
        HF_ENCODER,
        _hf_encoder("", IN_MEMORY),
        HF_MEAN,
    ],
}
"""The layouts that a file is tried against: the one that names most of its arrays is its own."""
