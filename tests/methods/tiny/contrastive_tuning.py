"""A tiny contrastive tuning."""

from tests.helpers.tiny_args import VIT

COSTLY = True
ARGS = dict(encoder=VIT, projector=(32, 8), predictor=(32, 8), queue=16)
