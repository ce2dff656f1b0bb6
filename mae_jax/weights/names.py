"""How others name the arrays of a vision transformer and of its decoder, a table for each layout.

- timm's `VisionTransformer` (pytorch-image-models, Apache 2.0), whose names the official code of
  MAE (arXiv 2111.06377) shares; it adds a decoder.
- Hugging Face transformers' ViTMAE and ViT, as their files on disk name them. Version 5 writes the
  decoder's blocks under another name, and reads both.
- Its BEiT, which is the same network with a norm after the mean over the patches, where a ViT reads
  the class token; its keys have no bias, which the softmax over them ignores anyway.
"""

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


def _hf_block(ours: str, theirs: str, keys: str = "key") -> list[Row]:
    attention = f"{theirs}.attention.attention"
    weights, biases = dense(
        f"{ours}/attention/qkv", f"{attention}.query", f"{attention}.key", f"{attention}.value"
    )
    if not keys:
        biases = biases._replace(theirs=(biases.theirs[0], "", biases.theirs[2]))
    return [
        *norm(f"{ours}/norm1", f"{theirs}.layernorm_before"),
        weights,
        biases,
        *dense(f"{ours}/attention/proj", f"{theirs}.attention.output.dense"),
        *norm(f"{ours}/norm2", f"{theirs}.layernorm_after"),
        *dense(f"{ours}/mlp/fc1", f"{theirs}.intermediate.dense"),
        *dense(f"{ours}/mlp/fc2", f"{theirs}.output.dense"),
    ]


def _hf_encoder(prefix: str, keys: str = "key") -> list[Row]:
    embeddings = f"{prefix}embeddings"
    kernel, bias = dense("encoder/embed", f"{embeddings}.patch_embeddings.projection")
    return [
        Row("encoder/cls_token", (f"{embeddings}.cls_token",), "same"),
        Row(POSITIONS, (f"{embeddings}.position_embeddings",), "table"),
        kernel._replace(form="patch"),
        bias,
        *_hf_block("encoder/block_{}", f"{prefix}encoder.layer.{{}}", keys),
        *norm("encoder/norm", f"{prefix}layernorm"),
    ]


def _hf_decoder(blocks: str) -> list[Row]:
    return [
        Row("decoder/mask_token", ("decoder.mask_token",), "same"),
        Row(DECODER_POSITIONS, ("decoder.decoder_pos_embed",), "table"),
        *dense("decoder/embed", "decoder.decoder_embed"),
        *_hf_block("decoder/block_{}", f"decoder.{blocks}.{{}}"),
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
HF_CLASSIFIER = [*_hf_encoder("vit."), *dense("head", "classifier")]
HF_MAE = [*_hf_encoder("vit."), *_hf_decoder("decoder_layers")]
HF_MEAN = [
    *(row for row in _hf_encoder("beit.", keys="") if not row.ours.startswith("encoder/norm/")),
    *norm("fc_norm", "beit.pooler.layernorm"),
    *dense("head", "classifier"),
]
READABLE = {
    "timm / official MAE": MAE,
    "Hugging Face": [*HF_CLASSIFIER, *_hf_decoder("decoder_layers")],
    "Hugging Face, as version 5 writes it": [
        *HF_CLASSIFIER,
        *_hf_decoder("decoder_encoder.layer"),
    ],
    "Hugging Face, encoder alone": HF_ENCODER,
    "Hugging Face BEiT": HF_MEAN,
}
"""The layouts that a file is tried against: the first that names most of its arrays is its own."""
