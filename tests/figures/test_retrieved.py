"""The figure of retrieved images: which images it shows for which captions, and what it writes."""

import types

import numpy as np
import pytest

from mae_jax.data.vocabulary import of_words
from mae_jax.figures import retrieved
from mae_jax.types import UserError

COUNT, SIZE = 9, 4
WORDS = of_words(["red", "blue", "boot", "top", "coat"])
KINDS = ([2, 5, 7, 3], [2, 6, 7, 3], [2, 5, 8, 3], [2, 9, 3])


def make_rows():
    """Nine images of one gray level each, eight with one of four texts, of which two are equal to
    others; embeddings of length 1.
    """
    rng = np.random.default_rng(0)
    text, valid = np.zeros((COUNT, 5), np.int32), np.zeros((COUNT, 5), bool)
    for row in range(COUNT):
        numbers = KINDS[row % 4]
        text[row, : len(numbers)], valid[row, : len(numbers)] = numbers, row != 6
    unit = lambda x: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return {
        "image": np.arange(COUNT, dtype=np.uint8)
        .repeat(SIZE * SIZE * 3)
        .reshape(-1, SIZE, SIZE, 3),
        "text": text,
        "text_valid": valid,
        "image_embedding": unit(rng.normal(size=(COUNT, 3))),
        "text_embedding": unit(rng.normal(size=(COUNT, 3))),
    }


def context(rows, vocabulary=WORDS):
    """A figure's inputs, in batches of five of which the last is padded."""

    def batches(split, limit):
        assert (split, limit) == ("test", 100)
        for start in (0, 5):
            places = np.minimum(np.arange(start, start + 5), COUNT - 1)
            valid = np.arange(start, start + 5) < COUNT
            yield {name: values[places] for name, values in rows.items()} | {"valid": valid}

    def predict(outputs, reduce):
        return lambda batch: reduce({name: batch[name] for name in outputs}, batch)

    source = types.SimpleNamespace(vocabulary=vocabulary)
    data = types.SimpleNamespace(eval=batches, source=lambda split: source)
    return types.SimpleNamespace(split="test", data=data, predict=predict)


def test_each_caption_has_its_own_image_then_the_nearest_and_equal_texts_are_marked():
    rows = make_rows()
    found = retrieved.read(context(rows), captions=9, top=5, limit=100)
    used = [row for row in range(COUNT) if row != 6]
    kinds = {row: row % 4 for row in used}
    assert len(found) == 4, "different captions"
    for row, query in zip(found, (0, 1, 2, 3), strict=True):
        cosines = {
            k: float(rows["image_embedding"][k] @ rows["text_embedding"][query]) for k in used
        }
        order = sorted(used, key=lambda k: -cosines[k])
        best = next(place for place, k in enumerate(order, 1) if kinds[k] == kinds[query])
        own, *tiles = row.tiles
        assert row.label == f"{WORDS.decode(KINDS[query])}\n(rank {best} of {len(used)})"
        assert (own.image == query).all() and own.marked and own.title.startswith("its own, ")
        assert [int(tile.image[0, 0, 0]) for tile in tiles] == order[:5]
        assert [tile.marked for tile in tiles] == [kinds[k] == kinds[query] for k in order[:5]]
        assert tiles[0].title == f"1, {cosines[order[0]]:.2f}"
    rows["image"][8] = rows["image"][0]
    rows["image_embedding"][8] = rows["image_embedding"][0]
    rows["text"][8], rows["text_valid"][8] = rows["text"][1], rows["text_valid"][1]
    found = retrieved.read(context(rows), captions=9, top=9, limit=100)
    for row, framed in zip(found, ({0, 4}, {0, 1, 5}, {2}, {3, 7}), strict=True):
        tiles = row.tiles[1:]
        shown = [int(tile.image[0, 0, 0]) for tile in tiles]
        assert sorted(shown) == [0, 1, 2, 3, 4, 5, 7], "equal images are shown once"
        assert {k for k, tile in zip(shown, tiles) if tile.marked} == framed
        assert row.label.endswith(" of 7)")
    few = retrieved.read(context(make_rows(), None), captions=2, top=1, limit=100)
    assert [row.label.split("\n")[0] for row in few] == ["tokens 2 5 7 3", "tokens 2 9 3"]


def test_the_sheet_has_a_label_a_row_titles_and_frames(tmp_path):
    tile = lambda title, marked: retrieved.Tile(np.zeros((4, 6, 3), np.uint8), title, marked)
    rows = [
        retrieved.Row("a $ red\nboot_1 $", [tile("x $", True), tile("y", False)]),
        retrieved.Row("top", [tile("z", False)]),
    ]
    figure = retrieved.sheet(rows)
    first, second, third, empty = figure.axes
    assert first.get_ylabel() == "a $ red\nboot_1 $" and third.get_ylabel() == "top"
    assert [axis.get_title() for axis in figure.axes] == ["x $", "y", "z", ""]
    assert [axis.spines["left"].get_visible() for axis in (first, second)] == [True, False]
    assert not empty.axison
    figure.savefig(tmp_path / "f.png")


def test_pictures_are_small():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 300, 150, 3)).astype(np.uint8)
    smooth = np.full((2, 300, 150, 3), 77, np.uint8)
    assert retrieved.pictures({}, {"image": images})["image"].shape == (2, 96, 48, 3)
    small = np.asarray(retrieved.pictures({}, {"image": smooth})["image"])
    assert small.dtype == np.uint8 and (small == 77).all()
    assert retrieved.pictures({}, {"image": smooth[:, :8, :9]})["image"].shape == (2, 8, 9, 3)


def test_what_it_cannot_draw():
    method = lambda *outputs: types.SimpleNamespace(offers=lambda: outputs)
    figure = retrieved.make()
    assert figure.check(method("features", "image_embedding", "text_embedding")) is None
    assert "does not compare images with texts" in figure.check(method("features"))
    for wrong in (dict(captions=0), dict(top=0), dict(limit=0)):
        with pytest.raises(UserError, match="must be at least 1"):
            retrieved.make(**wrong)
    rows = make_rows()
    broken = rows | {"image_embedding": np.full((COUNT, 3), np.nan, np.float32)}
    with pytest.raises(UserError, match="^image_embedding: of 8 examples, 8 have a value"):
        retrieved.read(context(broken), captions=1, top=1, limit=100)
    rows["text_valid"] = np.zeros_like(rows["text_valid"])
    with pytest.raises(UserError, match="no image of config.data.test has a text"):
        retrieved.read(context(rows), captions=1, top=1, limit=100)
