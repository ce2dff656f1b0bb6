"""The box of a volume that holds its foreground."""

import numpy as np

from mae_jax.data.bricks import slabs
from mae_jax.data.images import BadImage
from mae_jax.data.lazy import Lazy
from mae_jax.data.volume_windows import plateau


def foreground_box(image: Lazy, labels: Lazy | None) -> tuple[slice, ...]:
    """The smallest box of all voxels that are foreground, or of a class but 0.

    The background is the level that most voxels on the six faces share, if at least a tenth of
    them do, see `volume_windows.plateau`. Without one, the box is the whole volume.

    Args:
        image: levels [D, H, W, C], read a few planes at a time.
        labels: class numbers [D, H, W], if there are any.

    Raises:
        BadImage: all voxels are background.
    """
    faces = [
        image[(slice(None),) * axis + (end,)].ravel()
        for axis, side in enumerate(image.shape[:3])
        for end in (slice(0, 1), slice(side - 1, side))
    ]
    background = plateau(np.concatenate(faces))
    if background is None:
        return tuple(slice(0, side) for side in image.shape[:3])
    found = [np.zeros(side, bool) for side in image.shape[:3]]
    for rows in slabs(image.shape[0]):
        kept = (image[(rows,)] != background).any(-1)  # [d, H, W]
        kept |= False if labels is None else labels[(rows,)] != 0
        found[0][rows] = kept.any((1, 2))
        found[1] |= kept.any((0, 2))
        found[2] |= kept.any((0, 1))
    if not found[0].any():
        raise BadImage(f"all its voxels have the level {background:g} of its background")
    ends = [np.flatnonzero(one)[[0, -1]].tolist() for one in found]
    return tuple(slice(first, last + 1) for first, last in ends)
