"""Views of what an encoder has learned, one kind per file, each with `make(**kwargs)`, and the page
that shows them: `mae-jax explain`.
"""
