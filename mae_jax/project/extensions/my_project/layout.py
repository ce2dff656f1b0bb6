"""A layout of weights: the array names of the official MAE code with the prefix 'image_'."""

from mae_jax.weights.layouts import Layout, mae


def make() -> Layout:
    """Makes the layout, for `weights export --format my_project.layout` and `import --layout`."""
    prefixed = [
        row._replace(theirs=tuple(f"image_{name}" for name in row.theirs)) for row in mae.ROWS
    ]
    return Layout(readable=[prefixed])
