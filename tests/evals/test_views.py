"""Classification of clips by several views: which they are, and what is averaged."""

import numpy as np
import pytest

from mae_jax.data.sources import Arrays
from mae_jax.evals.classify import make as classify
from mae_jax.evals.views import make, views
from mae_jax.types import UserError
from tests.evals import test_volume_segmentation as volumes

rng = np.random.default_rng(0)
CLIPS = rng.integers(0, 256, (5, 9, 6, 11, 3)).astype(np.uint8)
LABELS = np.array([0, 1, 2, 1, 0])
OPTIONS = dict(size=(3, 6, 5), stride=2, clips=3, crops=3)
WEIGHTS = rng.normal(size=(3 * 6 * 5 * 3, 3)) / 20


TRANSFORM = "center_clip(3, stride=2)|center_crop((3, 6, 5))"


def data_of(clips=CLIPS, transform=TRANSFORM):
    source = Arrays({"image": clips, "label": LABELS})
    return volumes.data_of(source, transform=transform, field="label")


def logits_of(images):
    return images.reshape(len(images), -1) / 255 @ WEIGHTS


def predict(batch):
    return {"logits": logits_of(batch["image"])}


def test_clips_and_crops_are_spread_evenly():
    found = views(CLIPS[0], (3, 6, 5), 2, 3, 3)
    assert len(found) == 9
    for number, (start, left) in enumerate((t, x) for t in (0, 2, 4) for x in (0, 3, 6)):
        expected = CLIPS[0][[start, start + 2, start + 4], :, left : left + 5]
        np.testing.assert_array_equal(found[number], expected)
    (middle,) = views(CLIPS[0], (3, 4, 5), 1, 1, 1)
    np.testing.assert_array_equal(middle, CLIPS[0][3:6, 1:5, 3:8])


def test_probabilities_of_the_views_are_averaged():
    found = make(**OPTIONS)(predict, data_of())
    probabilities = []
    for clip in CLIPS:
        logits = logits_of(np.stack(views(clip, (3, 6, 5), 2, 3, 3)))
        shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        probabilities.append(shares.mean(0))
    probabilities = np.array(probabilities)
    assert found["top1_views"] == np.mean(probabilities.argmax(1) == LABELS)
    nll = -np.log(probabilities[np.arange(5), LABELS]).mean()
    np.testing.assert_allclose(found["nll_views"], nll, rtol=1e-12)


def test_a_limit_is_spread_over_the_set():
    """The examples are those that other evaluators read: not the first, which are of one class."""
    middles = CLIPS[:, 2:7:2, :, 3:8]
    read = [batch["image"][0] for batch in data_of().eval("test", 3)]
    found = [n for one in read for n in range(5) if np.array_equal(one, middles[n])]
    assert len(found) == 3 and sorted(found) != [0, 1, 2]
    source = Arrays({"image": CLIPS[found], "label": LABELS[found]})
    chosen = volumes.data_of(source, transform=TRANSFORM, field="label")
    few = make(**OPTIONS, limit=3)(predict, data_of())
    assert few == pytest.approx(make(**OPTIONS)(predict, chosen), rel=1e-12)


def test_short_examples_are_skipped_if_asked_for(caplog):
    class Unequal(Arrays):
        def read(self, indices):
            rows = super().read(indices)
            cut = zip(rows["image"], indices, strict=True)
            return rows | {"image": [clip[:4] if n == 1 else clip for clip, n in cut]}

    source = Unequal({"image": CLIPS, "label": LABELS})
    data = volumes.data_of(source, "skip", TRANSFORM, "label")
    found = make(**OPTIONS)(predict, data)
    assert "skipped: cannot read [1]: it is 4 x 6 x 11, and a view of size=" in caplog.text
    others = [0, 2, 3, 4]
    source = Arrays({"image": CLIPS[others], "label": LABELS[others]})
    rest = volumes.data_of(source, transform=TRANSFORM, field="label")
    assert found == make(**OPTIONS)(predict, rest)


def test_one_view_of_the_whole_is_classify():
    clips = CLIPS[:, 2:7:2, :, 3:8]
    data = data_of(clips, "")
    found = make(size=(3, 6, 5), clips=1, crops=1)(predict, data)
    plain = classify()(
        lambda batch: predict(batch) | {k: batch[k] for k in ("label", "valid")},
        type("Labeled", (), {
            "eval": lambda self, split, limit=None: [
                {"image": clips, "label": LABELS, "valid": np.ones(5, bool)}
            ]
        })(),
    )  # fmt: skip
    assert {f"{name}_views": value for name, value in plain.items()} == pytest.approx(found)


def test_mistakes_are_named():
    data = data_of(transform="pad((9, 8, 11))|center_clip(3, stride=2)|center_crop((3, 8, 5))")
    small = (
        r"\[0\]: it is 9 x 6 x 11, and a view of size=\(3, 8, 5\) at stride=2 takes 5 x 8 x 5; r"
    )
    with pytest.raises(UserError, match=small):
        make(**OPTIONS | dict(size=(3, 8, 5)))(predict, data)
    with pytest.raises(UserError, match=r"size=\(8, 8\) has 2 numbers, and .* have 3 axes besides"):
        views(CLIPS[0], (8, 8), 1, 1, 1)
    with pytest.raises(UserError, match=r"size=\(3, 6, 5\) should be .*_transform, \(3, 8, 5\)"):
        make(**OPTIONS)(predict, data)
    with pytest.raises(UserError, match="clips=0 and crops=3 must be positive"):
        make(**OPTIONS | dict(clips=0))
    with pytest.raises(UserError, match="limit=0 must be at least 1"):
        make(**OPTIONS, limit=0)
