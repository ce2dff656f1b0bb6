"""A tiny fine-tuning, of images that are not mixed."""

from tests.helpers.tiny_args import VIT

ARGS = dict(encoder=VIT, classes=4, mixup=0.0, cutmix=0.0, drop_path=0.0, layer_decay=1.0)
