"""Makes the golden attention weights that `tests/explain/test_attention.py` compares with: those of
`ViTMAEModel` of Hugging Face transformers (eager attention, nothing masked), with the weights and
images of `vitmae_pixels.npz` and `vitmae_wide.npz`.

Needs torch and transformers: python tests/golden/make_attention.py. The reference runs in float64
and is stored as float32.
"""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import ViTMAEConfig, ViTMAEModel

HERE = Path(__file__).parent


def attentions(arrays) -> np.ndarray:
    """Attention weights [blocks, B, heads, T, T] float32 of whole images.

    Args:
        arrays: see `record` of make_vitmae.py.
    """
    settings = json.loads(str(arrays["config"])) | {"mask_ratio": 0.0}
    config = ViTMAEConfig(**settings, attn_implementation="eager")
    model = ViTMAEModel(config)
    state = {
        name.removeprefix("weight/vit."): torch.from_numpy(arrays[name])
        for name in arrays
        if name.startswith("weight/vit.")
    }
    model.load_state_dict(state)
    embeddings = model.embeddings
    embeddings.interpolate_pos_encoding = lambda *_: embeddings.position_embeddings
    model = model.double()
    images = torch.from_numpy(arrays["images"]).double()
    noise = torch.arange(arrays["noise"].shape[1]).repeat(len(images), 1).double()  # in order
    with torch.no_grad():
        found = model(
            images, noise=noise, output_attentions=True, interpolate_pos_encoding=True
        ).attentions
    return torch.stack(found).float().numpy()


def main() -> None:
    """Writes the file."""
    found = {}
    for name in ("pixels", "wide"):
        with np.load(HERE / f"vitmae_{name}.npz") as arrays:
            found[name] = attentions(dict(arrays))
    np.savez_compressed(HERE / "vitmae_attention.npz", **found)


if __name__ == "__main__":
    main()
