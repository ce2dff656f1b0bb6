"""Evaluators of images and texts: data and names of classes that they cannot evaluate."""

import types

import numpy as np
import pytest

from mae_jax.checks import _check_split
from mae_jax.evals import masked_tokens, zero_shot
from mae_jax.types import UserError
from tests.evals.test_image_text import Data, Letters

ROWS = {
    "image": np.eye(4, 27, dtype=np.float32),
    "label": np.array([0, 1, 2, 2]),
    "text": np.zeros((4, 6), np.int32),
    "text_valid": np.zeros((4, 6), bool),
    "valid": np.array([True, True, True, False]),
}


def accuracy(known=(), **options):
    """Of zero-shot classification by counts of the letters from a on; image i holds letter i.

    Args:
        known: names of the classes of the data.
    """
    evaluator = zero_shot.make(**{"prompts": "{}"} | options)

    def predict(batch):
        rows = [row[valid] for row, valid in zip(batch["text"], batch["text_valid"], strict=True)]
        text = np.stack([np.bincount(row, minlength=40)[3:30] for row in rows]).astype(np.float32)
        outputs = {"text_embedding": text, "image_embedding": batch["image"]}
        return evaluator.reduce(outputs, batch)

    return evaluator(predict, Data([ROWS], Letters(), known))["zero_shot"]


def test_names_of_classes_that_do_not_fit():
    assert accuracy("abc") == accuracy(names=tuple("abc")) == accuracy("xyz", names="abc") == 1
    with pytest.raises(UserError, match=r"names=\('a', 'b'\) are 2, and config.data.test has 3 cl"):
        accuracy("abc", names=("a", "b"))
    with pytest.raises(UserError, match="has the label 2, and 2 names of classes are known"):
        accuracy(names=("a", "b"))
    with pytest.raises(UserError, match="prompts of 'a b' and 'ab' have equal tokens"):
        accuracy(names=("c", "a b", "ab"))
    with pytest.raises(UserError, match="prompts of 'caaaax' and 'caaaay' have equal tokens"):
        accuracy(names=("caaaax", "b", "caaaay"), prompts="{}d")
    # Two equal names are those of the published list for ImageNet; the first is predicted.
    assert accuracy(names=("a", "b", "b")) == pytest.approx(2 / 3)


def test_prompts_hold_other_braces():
    assert accuracy("abc", prompts=("{} {x}", "{x} {}")) == 1


def test_names_that_are_given_need_none_of_the_data():
    held = types.SimpleNamespace(names={})
    data = types.SimpleNamespace(example=lambda *_: ROWS, source=lambda split: held)
    with pytest.raises(UserError, match="zero_shot needs labels, and config.data.test has none"):
        _check_split(data, zero_shot.make(), "test", ("image",))
    _check_split(data, zero_shot.make(names=("a", "b")), "test", ("image",))


def test_masked_tokens_needs_texts():
    batch = {
        "image": np.zeros((3, 2, 2, 3), np.uint8),
        "text": np.zeros((3, 5), np.int32),
        "text_valid": np.zeros((3, 5), bool),
        "valid": np.ones(3, bool),
    }
    nothing = np.zeros((3, 5), bool)
    outputs = {"text_correct": nothing, "text_masked": nothing, "patch_error": np.ones(3)}
    evaluator = masked_tokens.make()
    words = types.SimpleNamespace(tokens=("[PAD]", "cat"), special={"padding": 0})
    for known in (None, words):
        with pytest.raises(UserError, match="no batch of the test set has two examples"):
            evaluator(lambda batch: evaluator.reduce(outputs, batch), Data([batch], known))
