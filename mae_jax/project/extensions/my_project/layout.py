"""A layout of weights: the arrays of the official code of MAE, each behind a prefix of its own."""

from mae_jax.weights.layouts import Layout, mae


def make() -> Layout:
    """mae-jax weights export --format my_project.layout; import --layout my_project.layout"""
    prefixed = [
        row._replace(theirs=tuple(f"image_{name}" for name in row.theirs)) for row in mae.ROWS
    ]
    return Layout(readable=[prefixed])
