"""Makes the golden arrays of ROIAlign (arXiv 1703.06870) and non-maximum suppression by
torchvision's own kernels.

Needs torch and torchvision: python tests/golden/make_torchvision.py. Features are whole eighths,
and boxes whole quarters of a pixel, so that they are exact in float32.
"""

from pathlib import Path

import numpy as np
import torch
from torchvision.ops import nms, roi_align

OUT, SCALE = 3, 0.25
BOXES = (
    (0, 0, 56, 40),
    (7.75, 3.25, 30.25, 21.5),
    (-30, -9, 12, 17),  # partly outside
    (50, 33, 90, 60),
    (-50, -50, -20, -20),  # outside
    (3, 100, 9, 140),
    (5, 5, 20, 5),  # no extent
    (6, 6, 6.5, 6.5),  # less than a pixel
    (10, 0, 12, 40),  # long and thin
)
"""(xmin, ymin, xmax, ymax), on a map of 10 x 14 pixels at a quarter of the scale."""
THRESHOLDS = (0.25, 0.5, 0.7)
"""At 0.3 torchvision, which compares overlaps in float32 with a threshold in float64, suppresses
boxes that overlap by exactly 0.3, too."""


def crowded(rng, count=40):
    """Boxes and scores of which many overlap and tie."""
    low, sides = rng.integers(0, 12, (count, 2)), rng.integers(1, 12, (count, 2))
    boxes = np.concatenate([low, low + sides], axis=1).astype(np.float32)
    return boxes, (rng.integers(0, 9, count) / 8).astype(np.float32)


def main() -> None:
    """Writes torchvision.npz next to this file."""
    rng, arrays = np.random.default_rng(0), {}
    features = (rng.integers(-16, 17, (2, 10, 14)) / 8).astype(np.float32)  # [C, H, W]
    rois = np.array([(0, *box) for box in BOXES], np.float32)
    found = roi_align(
        torch.from_numpy(features)[None].double(),
        torch.from_numpy(rois).double(),
        OUT,
        spatial_scale=SCALE,
        sampling_ratio=-1,  # as many samples as a bin has pixels along each axis
        aligned=True,
    )
    arrays |= dict(features=features, rois=rois[:, 1:], pooled=found.numpy().astype(np.float32))
    sets = [crowded(rng) for _ in range(3)]
    arrays |= dict(boxes=np.array([b for b, _ in sets]), scores=np.array([s for _, s in sets]))
    kept = np.zeros((len(THRESHOLDS), *arrays["scores"].shape), bool)
    for i, threshold in enumerate(THRESHOLDS):
        for j, (boxes, scores) in enumerate(sets):
            kept[i, j, nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold)] = True
    arrays |= dict(kept=kept, thresholds=np.array(THRESHOLDS), scale=SCALE)
    np.savez_compressed(Path(__file__).parent / "torchvision.npz", **arrays)


if __name__ == "__main__":
    main()
