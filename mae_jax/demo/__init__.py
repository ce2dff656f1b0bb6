"""`mae-jax demo`: a page on which to try a trained model.

The page, in `assets`, computes nothing. A backend does: the local server of this package, or any
other that has the functions in the comment of `assets/page.js`.
"""
