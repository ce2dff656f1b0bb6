"""A tiny fine-tuning, of images that are not mixed."""

from tests.helpers.tiny_args import CONV, VIT

ARGS = dict(encoder=VIT, classes=4, mixup=0.0, cutmix=0.0, drop_path=0.0, layer_decay=1.0)
OTHERS = dict(ordered=dict(objective="ordered(class_weights=balanced)", smoothing=0.0))
RARE = dict(
    multilabel=dict(objective="multilabel(class_weights=balanced)"),
    regression=dict(objective="regression", classes=1, smoothing=0.0),
    conv=dict(encoder=CONV),
)
