"""Masked Autoencoders in JAX and Flax, beside the other ways of learning without labels."""

__version__ = "0.1.0"
