"""Captions of scenes: a function of seed, split and index that names what a scene is."""

import itertools
import re

import numpy as np
import pytest

from mae_jax.data import scene_captions as C
from mae_jax.data.scene_parts import load
from mae_jax.data.sources import fashion_scenes
from mae_jax.data.vocabulary import split
from mae_jax.types import UserError

COUNT = 400


@pytest.fixture(scope="module", params=fashion_scenes.SPLITS)
def part(request):
    return request.param


@pytest.fixture(scope="module")
def scenes(part):
    return fashion_scenes.make(split=part, num_examples=COUNT, size=16, captions=True)


def texts_of(source):
    """The captions of a source."""
    fields = source.arrays
    return [
        source.vocabulary.decode(row[:count])
        for row, count in zip(fields["text"], fields["text_valid"].sum(1))
    ]


def named(text):
    """The classes that a caption names: 't - shirt' is no shirt, and 'at the top' no top."""
    text = text.replace("at the top", "")
    return {
        label
        for label, nouns in enumerate(C.NOUNS)
        if any(re.search(rf"(?<!- )\b{re.escape(' '.join(split(noun)))}\b", text) for noun in nouns)
    }


def test_images_and_all_other_fields_stay_the_same(part, scenes):
    plain = fashion_scenes.make(split=part, num_examples=COUNT, size=16)
    assert scenes.arrays.keys() - plain.arrays.keys() == {"text", "text_valid"}
    for name, values in plain.arrays.items():
        np.testing.assert_array_equal(scenes.arrays[name], values)
    assert plain.vocabulary is None and not plain.digest


def test_a_caption_depends_on_seed_split_and_index_alone(part, scenes):
    make = lambda **more: fashion_scenes.make(
        split=part, num_examples=20, captions=True, **{"size": 16, **more}
    )
    few, large, other = make(), make(size=40), make(seed=1)
    for name in ("text", "text_valid"):
        np.testing.assert_array_equal(few.arrays[name], scenes.arrays[name][:20])
        np.testing.assert_array_equal(few.arrays[name], large.arrays[name])
    assert (other.arrays["text"] != few.arrays["text"]).any(axis=1).sum() > 15
    assert len(set(texts_of(scenes))) > 0.95 * COUNT
    labels = make(label="size").arrays
    np.testing.assert_array_equal(labels["text"], few.arrays["text"])


def test_captions_name_the_right_class(scenes):
    for text, label in zip(texts_of(scenes), scenes.arrays["label"], strict=True):
        assert named(text) == {label}, text


def test_captions_say_where_the_garment_is_and_how_large(scenes):
    """From the boxes and the sizes, which the captions do not read."""
    boxes, sizes = scenes.arrays["box"], (scenes.arrays["value"] - 0.5) / 0.4
    seen = dict.fromkeys(("left", "right", "top", "bottom", *range(5)), 0)
    names = [[" ".join(split(word)) for word in words] for words in C.SIZES]
    for text, box, size in zip(texts_of(scenes), boxes, sizes, strict=True):
        middle = (box[:2] + box[2:]) / 2
        for word, place in (("on the left", middle[1]), ("on the right", 1 - middle[1])):
            if word in text:
                seen[word.split()[-1]] += 1
                assert place < 0.5, text
        for word, place in (("at the top", middle[0]), ("at the bottom", 1 - middle[0])):
            if word in text:
                seen[word.split()[-1]] += 1
                assert place < 0.56, text  # shoes are low in their squares
        for number, words in enumerate(names):
            if any(re.search(rf"\b{word}\b(?! stones)", text) for word in words):
                seen[number] += 1
                assert number <= size * 5 <= number + 1 + 1e-5, text
    assert min(seen.values()) > COUNT / 60, seen


def test_captions_name_the_color():
    """Red, green and blue from the numbers of a scene; gray without saturation."""
    tint = lambda *rgb: C.Scene(0, "brick", dict(zip(("red", "green", "blue"), rgb))).tint
    expected = {(1, 0, 0): "red", (0, 1, 0): "green", (0, 0, 1): "blue", (1, 1, 0): "yellow"}
    expected |= {(1, 0.5, 0): "orange", (0, 1, 1): "teal", (1, 0, 1): "magenta"}
    expected |= {(0.5, 0.5, 0.55): "gray", (1, 1, 1): "white", (1, 0, 0.02): "red"}
    for rgb, word in expected.items():
        assert tint(*rgb)[0] == word
    assert {C.HUE_ENDS[i] < C.HUE_ENDS[i + 1] for i in range(8)} == {True}


def test_shoes_face_the_side_that_is_seen(scenes):
    """More of a boot's lower half is on the side of its toes."""
    seen = 0
    for text, label, mask in zip(
        texts_of(scenes), scenes.arrays["label"], scenes.arrays["segmentation"], strict=True
    ):
        assert ("facing" not in text) or label in C.POINTED
        if label != 9 or "facing" not in text:
            continue
        rows, columns = np.nonzero(mask)
        high = columns[rows <= np.quantile(rows, 0.3)].mean()  # the leg is over the heel
        seen += (high > columns.mean()) == ("facing left" in text)
    boots = sum(
        "facing" in text
        for text, label in zip(texts_of(scenes), scenes.arrays["label"])
        if label == 9
    )
    assert boots > 10 and seen > 0.9 * boots


def test_backgrounds_are_those_of_the_photograph(scenes):
    """Every photograph of both splits has words of its own; captions use those of one."""
    names = [name for part in fashion_scenes.SPLITS for name in load(part).photograph_names]
    assert names == [*C.PHOTOGRAPHS]
    words = [word for words in C.PHOTOGRAPHS.values() for word in words]
    assert len(set(words)) == len(words)
    count = sum(
        any(f"{behind} {word}" in text for behind, word in itertools.product(C.BEHIND, words))
        for text in texts_of(scenes)
    )
    assert abs(count / COUNT - C.KEPT["background"]) < 0.08


def test_all_words_are_known_and_fit():
    """No caption has an unknown word, and the longest fits in the default length."""
    vocabulary = C.vocabulary()
    longest = lambda words: max(len(split(word)) for word in words)
    garment = 1 + sum(longest(itertools.chain(*words)) for words in (C.NOUNS, C.SIZES, C.HUES))
    places = longest(C.ROWS) + longest(C.COLUMNS)
    behind = longest(C.BEHIND) + longest(itertools.chain(*C.PHOTOGRAPHS.values()))
    assert 2 + longest(C.OPENINGS) + garment + 2 + places + behind <= 32
    names = [*vocabulary.encode(fashion_scenes.CLASS_NAMES)]
    assert vocabulary.special["unknown"] not in itertools.chain(*names), "prompts of class names"


def test_no_unknown_words(scenes):
    assert not (scenes.arrays["text"] == scenes.vocabulary.special["unknown"]).any()
    assert len(scenes.notes) == 1 and "unknown" not in scenes.notes[0]


def test_mistakes():
    with pytest.raises(UserError, match="captions=True is for one garment: leave objects out"):
        fashion_scenes.make(captions=True, objects=(1, 2))
    with pytest.raises(UserError, match="fashion_scenes: length 1: give a number of tokens"):
        fashion_scenes.make(captions=True, length=1, num_examples=1)
