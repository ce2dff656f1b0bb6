"""A tiny colorization."""

from tests.helpers.tiny_args import VIT

ARGS = dict(encoder=VIT)
