"""Tiny linear probes."""

from tests.helpers.tiny_args import VIT

ARGS = dict(encoder=VIT, classes=4, lr_factors=(3.0, 10.0))
RARE = dict(
    ordered=dict(objective="ordered"),
    multilabel=dict(objective="multilabel"),
    regression=dict(objective="regression", classes=1),
)
