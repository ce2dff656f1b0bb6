"""Tiny jigsaw puzzles."""

from tests.helpers.tiny_args import VIT

ARGS = dict(encoder=VIT, tile=4, permutations=4, hidden=16)
