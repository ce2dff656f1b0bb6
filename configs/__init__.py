"""The built-in experiments, one per file; `common.py` has their shared parts.

In Python and in your own configs: `from mae_jax.configs import common, quickstart`. On the command
line, from any folder: `--config quickstart` or `--config mae:L/16`.
"""
