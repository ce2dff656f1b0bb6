"""The experiments that come with the library, one a file; `common.py` holds what they share.

In Python and in a config of your own: `from mae_jax.configs import common, quickstart`. On the
command line: `--config quickstart` or `--config mae:L/16`, from any folder.
"""
