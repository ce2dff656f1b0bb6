"""Tiny segmentation by all heads."""

from tests.helpers.tiny_args import CONV, VIT

ARGS = dict(encoder=VIT, classes=4, head="linear", crop=16, layer_decay=1.0, drop_path=0.0)
IMAGE = (16, 16, 3)
RELATIVE = "vit(width=16, depth=1, heads=2, patch=4, relative_positions=True)"
OTHERS = {}
RARE = dict(
    upernet=dict(head="upernet", width=8, encoder=RELATIVE),
    transposed=dict(head="transposed", loss="dice_cross_entropy"),
    conv=dict(head="upernet", width=8, encoder=CONV),
)
