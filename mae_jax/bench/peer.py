"""A reference for speed: the masked autoencoder of `transformers` (ViTMAEForPreTraining) in PyTorch
on the same device, with the same shapes, images, mask ratio, type and optimizer.

It runs in eager mode and with torch.compile. Both normalize the same uint8 images on the device,
use fused AdamW, and on a CPU as many threads as XLA. In bfloat16 they run under autocast, in
float32 on a GPU with TensorFloat-32, as JAX does.
"""

import importlib.util
import os
import shutil
import time
from collections.abc import Callable

import jax
import numpy as np

from mae_jax.bench.setup import Setup
from mae_jax.bench.timing import Work
from mae_jax.data.loader import cores
from mae_jax.masks.random import Random
from mae_jax.methods.mae import MaskedAutoencoding
from mae_jax.models.vit import ViT
from mae_jax.spec import check_choice
from mae_jax.targets.pixels import Pixels
from mae_jax.types import UserError

EAGER, COMPILED = "transformers, eager", "transformers, torch.compile"


def make_peers(setup: Setup, name: str) -> tuple[dict[str, Work], list[str]]:
    """Training steps of the peers, by name, and notes on peers that are left out.

    Args:
        setup: of a masked autoencoder as in the paper.
        name: 'hf'.

    Raises:
        UserError: an unknown or missing peer, or a config that it does not support.
    """
    check_choice("peer", name, ("hf",))
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"--peer hf needs {package}, which is not installed: pip install torch transformers"
            )
    check_setup(setup)
    import torch

    torch.set_num_threads(cores())
    torch.set_float32_matmul_precision("high")
    eager = make_trainer(setup, compiled=False)
    works, notes = {EAGER: eager}, []
    reason = _no_compiler()
    if not reason:
        compiled = make_trainer(setup, compiled=True)
        try:
            compiled(1)
            works[COMPILED] = compiled
        except Exception as error:  # a failure of its compilers must not stop the benchmark
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if reason:
        notes.append(f"torch.compile is left out: {reason}")
    return works, notes


def check_setup(setup: Setup) -> None:
    """Raises UserError unless the peer supports the config."""
    method, optimizer = setup.method, setup.config.optimizer
    if type(method) is not MaskedAutoencoding or not isinstance(method.encoder, ViT):
        raise UserError("--peer hf is for masked autoencoders of a ViT: try configs/mae.py")
    encoder = method.encoder
    same = {
        "mask": isinstance(method.strategy, Random),
        "target": isinstance(method.target, Pixels) and method.target.normalize in (True, False),
        "class_tokens": encoder.class_tokens == 1,
        "patch": isinstance(encoder.patch, int),
        "loss": method.loss_kind == "mse",
        "score": method.loss_on == "masked",
        "mask_tokens_in_encoder": not encoder.mask_tokens,
        "learned_positions": not encoder.learned_positions,
        "final_norm": encoder.final_norm,
        "image size": len(setup.shape) == 3 and setup.shape[0] == setup.shape[1],
        "optimizer.name": optimizer.name == "adamw",
        "optimizer.clip": optimizer.clip is None,
        "accumulate": setup.microbatches == 1,
    }
    for name, fits in same.items():
        if not fits:
            raise UserError(
                f"--peer hf: ViTMAEForPreTraining does not support {name!r} of this config: leave "
                "it as in configs/mae.py"
            )
    platform = setup.mesh.devices.flat[0].platform
    if platform not in ("cpu", "gpu") or (platform == "gpu" and setup.mesh.size > 1):
        raise UserError(
            f"--peer hf runs on a CPU or on one GPU, and JAX has {setup.mesh.size} x {platform}: "
            "set CUDA_VISIBLE_DEVICES=0, or JAX_PLATFORMS=cpu"
        )


def _no_compiler() -> str:
    """Why torch.compile cannot run on this machine; '' if it may."""
    compiler = os.environ.get("CXX") or "g++"
    if not shutil.which(compiler) and not shutil.which("clang++"):
        return f"it needs a C++ compiler, and there is no {compiler}"
    return ""


def make_model(setup: Setup):
    """Makes ViTMAEForPreTraining with the sizes of the config's model, in training mode."""
    import transformers

    method = setup.method
    encoder, decoder = method.encoder, method.decoder
    config = transformers.ViTMAEConfig(
        hidden_size=encoder.width,
        num_hidden_layers=encoder.depth,
        num_attention_heads=encoder.heads,
        intermediate_size=int(encoder.width * encoder.mlp_ratio),
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-6,
        image_size=setup.shape[0],
        patch_size=encoder.patch,
        num_channels=setup.shape[2],
        decoder_hidden_size=decoder.width,
        decoder_num_hidden_layers=decoder.depth,
        decoder_num_attention_heads=decoder.heads,
        decoder_intermediate_size=4 * decoder.width,
        mask_ratio=method.mask_ratio,
        norm_pix_loss=method.target.normalize,
    )
    return transformers.ViTMAEForPreTraining(config).train()


def make_trainer(setup: Setup, *, compiled: bool) -> Work:
    """Training steps of the peer on the config's batch.

    Args:
        compiled: whether to use torch.compile, on the whole model.
    """
    import torch

    on_gpu = setup.mesh.devices.flat[0].platform == "gpu"
    if on_gpu and not torch.cuda.is_available():
        raise UserError(
            "--peer hf: this PyTorch sees no GPU; JAX_PLATFORMS=cpu compares on the CPU"
        )
    device = torch.device("cuda" if on_gpu else "cpu")
    torch.manual_seed(setup.config.seed)
    model = make_model(setup).to(device)
    run = torch.compile(model) if compiled else model
    optimizer = setup.config.optimizer
    adamw = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=1e-6,
        betas=(optimizer.b1, optimizer.b2),
        weight_decay=optimizer.weight_decay,
        fused=True,
    )
    images = torch.from_numpy(np.array(jax.device_get(setup.batch()["image"]))).to(device)
    mean, std = (
        torch.tensor(values, device=device) * 255
        for values in (setup.method.mean, setup.method.std)
    )

    def step():
        pixels = ((images - mean) / std).permute(0, 3, 1, 2)
        with torch.autocast(device.type, torch.bfloat16, enabled=setup.dtype == "bfloat16"):
            loss = run(pixels).loss
        loss.backward()
        adamw.step()
        adamw.zero_grad(set_to_none=True)

    return _repeat(step, torch.cuda.synchronize if on_gpu else lambda: None)


def _repeat(step: Callable[[], None], wait: Callable[[], None]) -> Work:
    def work(times: int) -> float:
        begun = time.perf_counter()
        for _ in range(times):
            step()
        wait()
        return time.perf_counter() - begun

    return work
