"""Masked autoencoders in JAX and Flax, and other methods of self-supervised learning.

`mae_jax.load("runs/quickstart").features(images)` computes features with a trained model.
"""

from pathlib import Path

__version__ = "0.1.0"


def load(source: str | Path, **options):
    """Loads a trained model, see `mae_jax.model.load`. JAX is imported when this is called."""
    from mae_jax.model import load as load_model

    return load_model(source, **options)
