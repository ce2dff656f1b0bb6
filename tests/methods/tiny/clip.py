"""A tiny CLIP of masked images."""

from tests.helpers.tiny_args import VIT

COSTLY = True

ARGS = dict(
    vocabulary=16,
    length=6,
    encoder=VIT,
    text="text_tower(width=16, depth=1, heads=2)",
    embedding=8,
)
RARE = {
    "sigmoid": dict(loss="sigmoid", mask_ratio=0.0, pool="cls"),
    "causal": dict(text="text_tower(width=16, depth=1, heads=2, causal=True)", tuning_share=0.0),
}
