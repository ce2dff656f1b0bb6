"""Masks of objects that are cut to their boxes, under geometric transforms: a mask is resampled to
its new box, and the box is then the extent of what is left of the mask, as in detectron2's
large-scale jitter.
"""

from collections.abc import Callable

import numpy as np

Back = Callable[[np.ndarray], np.ndarray]
"""Points [..., 2] (y, x) in the result -> in the image, as fractions of their sizes."""

_EXACT = 1e-6  # of a box: closer corners are the same


def moved(
    masks: np.ndarray, old: np.ndarray, new: np.ndarray, back: Back
) -> tuple[np.ndarray, np.ndarray]:
    """Masks and boxes after a geometric transform.

    Args:
        masks: [n, m, m] uint8, 0 to 255.
        old: [n, 4] boxes (ymin, xmin, ymax, xmax) in the image, as fractions.
        new: [n, 4] the same boxes in the result, clipped to it; zeros if outside.
        back: maps points in the result to the image.

    Returns:
        Masks [n, m, m] uint8 and boxes [n, 4] in the result. Rows are zeros where nothing of the
        mask is left.
    """
    masks_, boxes = np.zeros_like(masks), np.zeros_like(new)
    for row in np.flatnonzero((new[:, :2] < new[:, 2:]).all(1)):
        masks_[row], boxes[row] = _moved(masks[row], old[row], new[row], back)
    return masks_, boxes


def _moved(mask: np.ndarray, old: np.ndarray, box: np.ndarray, back: Back):
    """Mask [m, m] and box of one object; see `moved`."""
    nothing = np.zeros_like(mask), np.zeros_like(box)
    if not mask.any():
        return nothing
    low, high = old[:2], old[2:]
    corners = (back(box.reshape(2, 2)) - low) / (high - low)  # [(low, high), (y, x)] in the old box
    if np.allclose(corners, [[0, 0], [1, 1]], atol=_EXACT, rtol=0):
        return mask, box
    if np.allclose(corners, [[0, 1], [1, 0]], atol=_EXACT, rtol=0):
        return mask[:, ::-1], box
    sampled = _sampled(mask, old, box, back)
    # Half of a pixel belongs to the object; of thin objects, no pixel of a coarse mask is full.
    solid = 2 * sampled.astype(int) >= mask.max()
    if not solid.any():
        return nothing
    ends = []
    for axis, side in enumerate(mask.shape):
        places = np.flatnonzero(solid.any(1 - axis))
        ends.append((places[0] / side, (places[-1] + 1) / side))
    shares = np.array(ends).T  # [(low, high), (y, x)] in the new box
    if (shares == [[0, 0], [1, 1]]).all():
        return sampled, box
    tight = (box[:2] + shares * (box[2:] - box[:2])).ravel()
    return _sampled(mask, old, tight, back), tight


def _sampled(mask: np.ndarray, old: np.ndarray, box: np.ndarray, back: Back) -> np.ndarray:
    """A mask [m, m] of the box `old` in the image, resampled to a box in the result: bilinear with
    half-pixel centers, edges repeated, 0 outside the old box.
    """
    # Three corners in the old box are enough, as transforms are affine.
    corners = back(box[np.array([[0, 1], [2, 1], [0, 3]])])
    origin, below, beside = (corners - old[:2]) / (old[2:] - old[:2])  # [(y, x)]
    down, right = below - origin, beside - origin
    side = len(mask)
    steps = (np.arange(side) + 0.5) / side
    if max(abs(down[1]), abs(right[0])) < _EXACT:  # rows stay rows: one axis after the other
        y, x = origin[0] + steps * down[0], origin[1] + steps * right[1]
        values = linear(linear(mask, y * side - 0.5).T, x * side - 0.5).T
        return np.rint(values * np.outer(_within(y), _within(x))).astype(np.uint8)
    inside = origin + steps[:, None, None] * down + steps[:, None] * right  # [m, m, (y, x)]
    at = np.clip(inside * side - 0.5, 0, side - 1)
    low = np.floor(at).astype(int)
    (y0, x0), (y1, x1) = np.moveaxis(low, -1, 0), np.moveaxis(np.minimum(low + 1, side - 1), -1, 0)
    dy, dx = np.moveaxis(at - low, -1, 0)
    upper = (1 - dx) * mask[y0, x0] + dx * mask[y0, x1]
    lower = (1 - dx) * mask[y1, x0] + dx * mask[y1, x1]
    return np.rint(_within(inside).all(-1) * ((1 - dy) * upper + dy * lower)).astype(np.uint8)


def _within(inside: np.ndarray) -> np.ndarray:
    return (inside > -_EXACT) & (inside < 1 + _EXACT)


def linear(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Values [m, ...] at fractional places [n] of the first axis, edges repeated: [n, ...] float32.
    Not a matrix product: its threads would compete with the loader's.
    """
    at = np.clip(at, 0, len(values) - 1)
    low = at.astype(int)
    share = (at - low).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    return (1 - share) * values[low] + share * values[np.minimum(low + 1, len(values) - 1)]
