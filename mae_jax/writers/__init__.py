"""Writers send the scalars, images and final table of a run to TensorBoard or a tracking service:
one service per file, each with `make(**kwargs)`. `config.log.writers` names them by a spec string.
"""
