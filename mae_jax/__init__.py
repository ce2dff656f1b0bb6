"""Masked autoencoders in JAX and Flax, and other methods of self-supervised learning."""

__version__ = "0.1.0"
