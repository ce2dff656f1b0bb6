"""Tiny linear probes."""

from tests.helpers.tiny_args import VIT

ARGS = dict(encoder=VIT, classes=4, lr_factors=(3.0, 10.0))
