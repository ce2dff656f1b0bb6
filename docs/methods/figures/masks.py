"""Draws masks of all strategies to masks.png: python docs/methods/figures/masks.py"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from mae_jax.masks import MaskContext, make_strategy, sample

GRID, COUNT, RATIO = (16, 16), 6, 0.75
STRATEGIES = (
    "random",
    "random(unit=2)",
    "random(unit=4)",
    "block",
    "grid",
    "grid(unit=2)",
    "noise(color=green)",
    "noise(color=blue)",
    "noise(color=red)",
    "hard(start=0.5)",
    "hard(start=1.0)",
)


def main() -> None:
    """A row for each strategy; visible patches are white."""
    canvas = Figure((1.7 + COUNT, len(STRATEGIES)), dpi=100)
    axes = canvas.subplots(len(STRATEGIES), COUNT)
    rows, columns = np.indices(GRID) - 7.5
    losses = jnp.broadcast_to(-np.hypot(rows, columns), (COUNT, *GRID))  # highest in the middle
    context = MaskContext(grid=GRID, batch=COUNT, guide=lambda: losses)
    for row, text in zip(axes, STRATEGIES, strict=True):
        mask = sample(jax.random.key(0), make_strategy(text), context, RATIO).mask
        for axis, image in zip(row, np.asarray(mask).reshape(COUNT, *GRID), strict=True):
            axis.imshow(~image, cmap="gray", vmin=-0.3, vmax=1)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(text, rotation=0, ha="right", va="center", fontsize=9)
    canvas.subplots_adjust(left=0.23, right=0.99, top=0.99, bottom=0.01, wspace=0.08, hspace=0.08)
    canvas.savefig(Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main()
