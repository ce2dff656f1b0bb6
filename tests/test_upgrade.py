"""Stored configs with the names of earlier versions: what each becomes."""

import pytest
from ml_collections import ConfigDict

from mae_jax.methods import make_method
from mae_jax.upgrade import upgrade

CONV = "(widths=(8, 16), depths=(1, 1), stem=2, kernel=3)"
SPARSE = dict(encoder=f"conv{CONV}", decoder_width=8, masked="sparse", unit=0, score="hidden")
HOLES = SPARSE | dict(masked="input", unit=2, skips=False, normalize_target=False)


@pytest.mark.parametrize(
    ("name", "args", "new_name", "new_args"),
    [
        (
            "conv_mae",
            SPARSE,
            "fcmae",
            dict(encoder=f"convnext{CONV}", decoder_width=8, loss_on="masked"),
        ),
        (
            "conv_mae",
            HOLES,
            "context_encoder",
            dict(
                encoder=f"convnext{CONV}",
                decoder_width=8,
                unit=2,
                skips=False,
                loss_on="masked",
                target="pixels(normalize=False)",
            ),
        ),
        (
            "tasks.finetune",
            dict(encoder="vit(Ti, patch=4)", classes=3, tuned="2"),
            "tasks.finetune",
            dict(encoder="vit(Ti, patch=4)", classes=3, trainable="2", objective="classes"),
        ),
        ("mae", dict(score="all"), "mae", dict(loss_on="all")),
        (
            "mae",
            dict(mask_ratio=0.75),
            "mae",
            dict(
                mask_ratio=0.75,
                decoder_positions="sincos",
                decoder_embed_bias=True,
                decoder_class_tokens=False,
                loss_mask="",
            ),
        ),
    ],
)
def test_old_names_become_new_ones_that_build(name, args, new_name, new_args):
    old = ConfigDict(dict(method=dict(name=name, args=args), identities={"train": "4 a"}))
    found = upgrade(old)
    assert found.method.name == new_name and found.method.args.to_dict() == new_args
    assert found.fingerprints.to_dict() == {"train": "4 a"} and "identities" not in found
    assert upgrade(ConfigDict(found.to_dict())) == found, "new names stay"
    make_method(**found.method.to_dict())


def test_keys_that_are_new_have_the_value_of_before():
    sections = dict(evals=dict(run=""), schedule=dict(epochs=1.0), data=dict(batch_size=2))
    sections |= dict(log=dict(every=3))
    found = upgrade(ConfigDict(dict(method=dict(name="mae"), **sections)))
    assert found.data.sampling == ""
    assert found.log.to_dict() == dict(every=3, writers="tensorboard")
    assert found.evals.figures == "auto" and found.evals.baselines is True
    assert found.schedule.decay == "cosine"
