"""Masked Autoencoders in JAX and Flax, beside the other ways of learning without labels.

model = mae_jax.load("runs/quickstart")
features = model.features(images)
"""

from pathlib import Path

__version__ = "0.1.0"


def load(source: str | Path, **options):
    """Loads a trained model, see `mae_jax.model.load`. JAX is imported when this is called."""
    from mae_jax.model import load as load_model

    return load_model(source, **options)
