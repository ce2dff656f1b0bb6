"""Tiny detection by Mask R-CNN."""

ENCODER = "vitdet(width=16, depth=2, heads=2, patch=4, window=2, global_blocks=1, position_grid=4)"
ARGS = dict(
    encoder=ENCODER,
    classes=4,
    size=16,
    objects=3,
    mask_size=8,
    width=8,
    hidden=16,
    anchor_scale=2.0,
    proposals=8,
    sample=8,
    detections=4,
    drop_path=0.0,
    layer_decay=1.0,
)
IMAGE = (16, 16, 3)
COSTLY = True
OTHERS = {}
