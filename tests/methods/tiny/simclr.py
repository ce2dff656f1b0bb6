"""A tiny SimCLR."""

from tests.helpers.tiny_args import VIT

ARGS = dict(encoder=VIT, projector=(32, 8), jitter=(0.1, 0.1, 0.0, 0.0))
