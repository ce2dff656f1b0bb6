"""Makes `videomae.npz`, which `tests/weights/test_videomae.py` compares with: a small masked
autoencoder of clips with random weights, run by `VideoMAEForPreTraining` of Hugging Face
transformers, an implementation of arXiv 2203.12602 that is independent of ours.

Needs torch and transformers: python tests/golden/make_videomae.py. The reference runs in float64
and is stored as float32. Norms have the epsilon of the original code, 1e-6, throughout.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import VideoMAEConfig, VideoMAEForPreTraining

CONFIG = dict(
    image_size=[8, 12],
    patch_size=4,
    num_channels=3,
    num_frames=6,
    tubelet_size=2,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=96,
    layer_norm_eps=1e-6,
    use_mean_pooling=False,
    decoder_hidden_size=16,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=64,
    norm_pix_loss=True,
)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def randomized(seed: int) -> VideoMAEForPreTraining:
    """A model in float64 in which no parameter is zero."""
    generator = torch.Generator().manual_seed(seed)
    model = VideoMAEForPreTraining(VideoMAEConfig(**CONFIG)).double().eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            scale = 1.5 / value.shape[1] ** 0.5 if value.ndim == 2 else 0.2
            # Rounded to float32, as the weights are stored.
            start = 1 if "norm" in name and name.endswith("weight") else 0
            value.copy_((start + scale * noise).float())
    model.decoder.norm.eps = CONFIG["layer_norm_eps"]
    for part in (model.videomae.embeddings, model):
        part.position_embeddings = part.position_embeddings.double()
    return model


def record(seed: int = 0) -> dict[str, np.ndarray]:
    """'config', 'weight/NAME' by the names of files, 'videos' [B, T, H, W, C] uint8, 'mask' [B, L]
    bool (True: masked), 'tokens' [B, K, D] of the visible patches, 'logits' [B, M, V] and 'loss'.
    """
    rng = np.random.default_rng(seed)
    videos = rng.integers(0, 256, (3, 6, 8, 12, 3)).astype(np.uint8)
    mask = np.stack([np.tile(rng.permutation(6) >= 2, 3) for _ in range(3)])  # tubes
    inputs = (videos / 255 - np.array(MEAN)) / np.array(STD)
    model = randomized(seed)
    pixels, masked = torch.tensor(inputs).permute(0, 1, 4, 2, 3), torch.tensor(mask)
    with torch.no_grad():
        output = model(pixel_values=pixels, bool_masked_pos=masked)
        tokens = model.videomae(pixels, bool_masked_pos=masked).last_hidden_state
    with tempfile.TemporaryDirectory() as folder:
        model.float().save_pretrained(folder)
        weights = load_file(Path(folder) / "model.safetensors")
        config = json.loads((Path(folder) / "config.json").read_text())
    arrays = {f"weight/{name}": array for name, array in weights.items()}
    results = dict(tokens=tokens, logits=output.logits, loss=output.loss)
    arrays |= {name: value.numpy().astype(np.float32) for name, value in results.items()}
    return arrays | dict(videos=videos, mask=mask, config=np.array(json.dumps(config)))


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_name("videomae.npz"), **record())
