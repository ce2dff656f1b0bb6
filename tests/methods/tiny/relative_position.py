"""Tiny relative positions."""

from tests.helpers.tiny_args import VIT

ARGS = dict(encoder=VIT, tile=4, hidden=16, colors="keep")
