"""A tiny rotation task, of square images."""

from tests.helpers.tiny_args import VIT

ARGS = dict(encoder=VIT)
IMAGE = (16, 16, 3)
