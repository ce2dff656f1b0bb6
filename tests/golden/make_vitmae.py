"""Makes the golden arrays that `tests/test_vitmae.py` compares with: small masked autoencoders with
random weights, run forward and backward by `ViTMAEForPreTraining` of Hugging Face transformers, an
implementation of arXiv 2111.06377 that is independent of ours.

Needs torch and transformers: python tests/golden/make_vitmae.py. The reference runs in float64 and
is stored as float32, so that the rounding errors that a comparison shows are the other side's.
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import ViTMAEConfig, ViTMAEForPreTraining
from transformers.models.vit_mae import modeling_vit_mae

BATCH = 3


def config_of(
    *,
    image_size: tuple[int, int],
    patch: int,
    channels: int,
    encoder: tuple[int, int, int],
    decoder: tuple[int, int, int],
    mask_ratio: float,
    norm_pix_loss: bool,
) -> dict:
    """Keyword arguments of `ViTMAEConfig`; encoder and decoder are (width, depth, heads)."""
    return dict(
        image_size=list(image_size),
        patch_size=patch,
        num_channels=channels,
        hidden_size=encoder[0],
        num_hidden_layers=encoder[1],
        num_attention_heads=encoder[2],
        intermediate_size=4 * encoder[0],
        decoder_hidden_size=decoder[0],
        decoder_num_hidden_layers=decoder[1],
        decoder_num_attention_heads=decoder[2],
        decoder_intermediate_size=4 * decoder[0],
        mask_ratio=mask_ratio,
        norm_pix_loss=norm_pix_loss,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
    )


CASES = {
    "pixels": config_of(
        image_size=(16, 16),
        patch=4,
        channels=3,
        encoder=(32, 2, 2),
        decoder=(24, 2, 3),
        mask_ratio=0.75,
        norm_pix_loss=False,
    ),
    "normalized": config_of(
        image_size=(20, 20),
        patch=4,
        channels=3,
        encoder=(36, 1, 3),
        decoder=(24, 1, 2),
        mask_ratio=0.75,
        norm_pix_loss=True,
    ),
    "one_channel": config_of(
        image_size=(18, 18),
        patch=6,
        channels=1,
        encoder=(32, 2, 4),
        decoder=(20, 1, 1),
        mask_ratio=0.6,
        norm_pix_loss=True,
    ),
    "wide": config_of(
        image_size=(8, 32),
        patch=4,
        channels=2,
        encoder=(32, 1, 2),
        decoder=(28, 2, 2),
        mask_ratio=0.5,
        norm_pix_loss=False,
    ),
}


def positions(config: ViTMAEConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """The reference's fixed positions of encoder and decoder, each [1, 1 + L, D].

    A fresh `ViTMAEForPreTraining` has zeros in their place (its weights are meant to be loaded), so
    they are made by the parts of the model that compute them. These know square grids only; other
    grids take the table below them, with its halves exchanged as they do it.
    """
    rows, columns = (side // config.patch_size for side in config.image_size)
    if rows == columns:
        embeddings = modeling_vit_mae.ViTMAEEmbeddings(config)
        embeddings.initialize_weights()
        decoder = modeling_vit_mae.ViTMAEDecoder(config, rows * columns)
        return embeddings.position_embeddings.detach(), decoder.decoder_pos_embed.detach()
    tables = []
    for width in (config.hidden_size, config.decoder_hidden_size):
        table = modeling_vit_mae.build_2d_sinusoidal_position_embedding(
            rows, columns, width, cls_token=True
        )
        tables.append(torch.roll(table, width // 2, dims=1)[None])
    return tuple(tables)


def randomize(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """A random value for a parameter, none of it zero, at which attention is far from uniform.

    The class token is so small that the epsilon of the norm that follows it is felt.
    """
    value = torch.randn(shape, generator=generator)
    if name.endswith("cls_token"):
        return 0.003 * value
    if name.endswith("mask_token"):
        return 0.5 * value
    if name.endswith("bias"):
        return 0.2 * value
    if len(shape) == 1:
        return 1 + 0.3 * value
    return value / np.prod(shape[1:]) ** 0.5


def build(settings: dict, generator: torch.Generator) -> ViTMAEForPreTraining:
    """The reference in float64 with random float32 weights and its fixed positions."""
    config = ViTMAEConfig(**settings)
    model = ViTMAEForPreTraining(config)
    embeddings, decoder = model.vit.embeddings, model.decoder
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(randomize(name, parameter.shape, generator))
        encoder_positions, decoder_positions = positions(config)
        embeddings.position_embeddings.copy_(encoder_positions)
        decoder.decoder_pos_embed.copy_(decoder_positions)
    # The reference takes oblong images only when told to interpolate positions, which it would do
    # from a square grid. These are already right for the grid: hand them over as they are.
    embeddings.interpolate_pos_encoding = lambda *_: embeddings.position_embeddings
    decoder.interpolate_pos_encoding = lambda *_: decoder.decoder_pos_embed
    return model.double()


def make_images(settings: dict, generator: torch.Generator) -> torch.Tensor:
    """[B, C, H, W] float32 of mean about 0.3 and deviation 1; the top row of patches is nearly
    flat, like a sky, so that the epsilon of the normalized target is felt.
    """
    shape = (BATCH, settings["num_channels"], *settings["image_size"])
    images = torch.randn(shape, generator=generator) + 0.3
    images[:, :, : settings["patch_size"]] *= 0.002
    return images


def record(settings: dict, seed: int) -> dict[str, np.ndarray]:
    """Everything that a comparison needs.

    Returns:
        'config' (JSON), 'images' [B, C, H, W], 'noise' [B, L], 'mask' [B, L] (1 = hidden),
        'restore' [B, L], 'loss', 'prediction' [B, L, P], 'features' [B, 1 + L, D] (the encoder on
        whole images, in image order), 'weight/NAME' and 'gradient/NAME' in the names and layouts of
        torch. Floats are float32.
    """
    generator = torch.Generator().manual_seed(seed)
    model = build(settings, generator)
    images = make_images(settings, generator)
    height, width = settings["image_size"]
    noise = torch.rand(
        BATCH,
        (height // model.config.patch_size) * (width // model.config.patch_size),
        generator=generator,
    )
    out = model(images.double(), noise, interpolate_pos_encoding=height != width)
    out.loss.backward()
    arrays = {
        "config": np.array(json.dumps(settings)),
        "images": images,
        "noise": noise,
        "mask": out.mask,
        "restore": out.ids_restore,
        "loss": out.loss,
        "prediction": out.logits,
        "features": encode(model, images, noise),
    }
    for name, parameter in model.named_parameters():
        arrays[f"weight/{name}"] = parameter
        if parameter.requires_grad:
            arrays[f"gradient/{name}"] = parameter.grad
    return {name: as_numpy(value) for name, value in arrays.items()}


@torch.no_grad()
def encode(model: ViTMAEForPreTraining, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """[B, 1 + L, D] of whole images. The reference shuffles even so; the order is put back."""
    mask_ratio, model.config.mask_ratio = model.config.mask_ratio, 0.0
    out = model.vit(images.double(), noise)
    model.config.mask_ratio = mask_ratio
    tokens = out.last_hidden_state
    places = out.ids_restore[:, :, None].expand(-1, -1, tokens.shape[2])
    return torch.cat([tokens[:, :1], torch.gather(tokens[:, 1:], 1, places)], dim=1)


def as_numpy(value: torch.Tensor | np.ndarray) -> np.ndarray:
    """A numpy array, float32 if it holds float64."""
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    return value.astype(np.float32) if value.dtype == np.float64 else value


def main() -> None:
    """Writes one file for each case, beside this one."""
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    for seed, (name, settings) in enumerate(CASES.items()):
        path = Path(__file__).parent / f"vitmae_{name}.npz"
        np.savez_compressed(path, **record(settings, seed))
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
