"""Extensions of mae_jax, one module each. Where a config names a module ('my_project.mask'), the
library calls its `make`.
"""
