"""`mae-jax demo`: a page to try a trained model with. Its assets compute nothing: a backend does, the
local server of this package, see the comment in `assets/page.js`.
"""
