"""Inputs and predictions of a method on volumes, in three planes: axial, coronal and sagittal."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure as Canvas

from mae_jax.evals.features import EvalData
from mae_jax.evals.sliding import first_geometries
from mae_jax.figures.figure import Figure, FigureContext, save
from mae_jax.figures.reconstructions import drawn, labeled, nothing_to_draw, raster
from mae_jax.ops.planes import NAMES, joined, planes, same_size
from mae_jax.types import UserError

SIDE = 3.3
"""Width of the three planes of a volume in inches."""


def make(count: int = 3) -> Figure:
    """Draws `planes.png`: the pictures of the method (`Method.pictures`) of volumes, a row for each
    kind. Each volume is shown in the three planes through its middle, at the proportions of its
    spacing: the front, or the head, is up, and the right side of the body is on the right.

    Args:
        count: number of volumes.
    """
    if count < 1:
        raise UserError(f"planes: count={count} must be at least 1")
    name = "planes.png"
    return Figure(
        name="planes",
        files=(name,),
        draw=lambda context: [save(sheet(context, count), context.folder / name)],
        check=nothing_to_draw,
        sheet=lambda context, number, seed: sheet(context, number or count, seed),
        log=lambda context: logged(context, count),
    )


def sheet(context: FigureContext, count: int, seed: int = 0) -> Canvas:
    """The picture of volumes under the masks of a seed."""
    return drawn(labeled(titled(rows(context, count, seed))), SIDE)


def logged(context: FigureContext, count: int) -> tuple[np.ndarray, str]:
    """The picture for the writers, [H, W, 3] uint8, and its labels."""
    found = labeled(titled(rows(context, count)))
    text = "Rows, from the top: " + "; ".join(" ".join(label.split()) for label in found)
    return raster(drawn(found, SIDE)), text


def rows(context: FigureContext, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Kind of picture -> [B, H, W, C] uint8, three planes of each volume side by side.

    Raises:
        UserError: the images are no volumes.
    """
    pictures = context.pictures(count, seed)
    space = next(iter(pictures.values())).shape[1:-1]
    if len(space) != 3:
        raise UserError(
            f"the figure planes is of volumes [D, H, W, C], and these images are {list(space)}: "
            "draw reconstructions"
        )
    spacings = first_spacings(context.data, context.split, count)

    def picture(volume: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
        return joined(planes(volume, [side // 2 for side in volume.shape[:3]], spacing))

    return {
        name: same_size(list(map(picture, volumes, spacings))) for name, volumes in pictures.items()
    }


def titled(pictures: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Label of each row, of which the first names the planes -> pictures."""
    (first, *others), values = pictures, pictures.values()
    return dict(zip((f"{first} ({', '.join(NAMES)})", *others), values, strict=True))


def first_spacings(data: EvalData, split: str, count: int) -> list[Sequence[float]]:
    """Spacing of the first volumes of a split, as evaluations with the limit `count` read them, in
    mm along depth, height and width; of unknown ones (1, 1, 1).
    """
    found = first_geometries(data, split, count)
    return [geometry.spacing if geometry else (1.0, 1.0, 1.0) for geometry in found]
