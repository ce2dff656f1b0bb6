"""A tiny encoder."""

from tests.helpers.tiny_args import VIT

ARGS = dict(encoder=VIT)
LEARNS = False
