"""A tiny MoCo v3."""

from tests.helpers.tiny_args import VIT

ARGS = dict(encoder=VIT, projector=(32, 8), predictor=(32, 8), jitter=(0.1, 0.1, 0.0, 0.0))
COSTLY = True
