"""Evaluators of images and texts: retrieval with ties, equal texts and several captions of an image
against plain loops, chance against counted subsets, masked tokens and zero-shot classification of
models with known outputs.
"""

import itertools
import types

import jax
import numpy as np
import pytest

from mae_jax.data import make_data
from mae_jax.evals import masked_tokens, retrieval, zero_shot
from mae_jax.types import UserError


class Data:
    """Batches of a test split, and its source."""

    def __init__(self, batches, vocabulary=None, names=()):
        self.batches = batches
        self.held = types.SimpleNamespace(vocabulary=vocabulary, names={"label": names})

    def eval(self, split, limit=None, then="", shuffled=False):
        assert split == "test"
        return iter(self.batches)

    def source(self, split):
        return self.held


def recalls(similarity, groups, k):
    """Recall at k, query by query: a correct candidate comes after wrong ones that are as near."""
    hits = []
    for query, row in enumerate(similarity):
        order = sorted(range(len(row)), key=lambda i: (-row[i], groups[i] == groups[query]))
        hits.append(any(groups[i] == groups[query] for i in order[:k]))
    return np.mean(hits)


def make_pairs(count=40, padding=2):
    """Embeddings of few values, so that many products are equal; ten different texts, and rows of
    padding and without a text.
    """
    rng = np.random.default_rng(0)
    text = np.stack([np.arange(count) % 10, np.full(count, 3), np.arange(count)], axis=1)
    valid = np.array([[True, True, False]] * count)  # the last token, which differs, is padding
    valid[5] = False
    return {
        "image_embedding": rng.integers(-1, 2, (count, 3)).astype(np.float32),
        "text_embedding": rng.integers(-1, 2, (count, 3)).astype(np.float32),
        "image": np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1),
        "text": text.astype(np.int32),
        "text_valid": valid,
        "valid": np.arange(count) < count - padding,
    }


def test_retrieval_counts_equal_texts_as_hits_and_ties_against_the_model():
    rows, evaluator = make_pairs(), retrieval.make(k=(1, 3))
    found, outputs = evaluate(evaluator, rows), {name: rows[name] for name in retrieval.OUTPUTS}
    used = rows["valid"] & rows["text_valid"].any(axis=1)
    groups = rows["text"][used, 0]
    similarity = outputs["image_embedding"][used] @ outputs["text_embedding"][used].T
    for k in (1, 3):
        assert found[f"image_to_text_at_{k}"] == pytest.approx(recalls(similarity, groups, k))
        assert found[f"text_to_image_at_{k}"] == pytest.approx(recalls(similarity.T, groups, k))
    assert (found["retrieval_images"], found["retrieval_texts"]) == (37, 10)
    assert set(found) == set(evaluator.metrics)
    assert found["image_to_text_at_3_chance"] == found["text_to_image_at_3_chance"]
    assert 0 < found["image_to_text_at_3"] < 1


def evaluate(evaluator, rows):
    """The metrics of outputs that are among the rows [40, ...], in two batches."""

    def predict(batch):
        return evaluator.reduce({name: batch[name] for name in evaluator.outputs}, batch)

    halves = [{name: values[i : i + 20] for name, values in rows.items()} for i in (0, 20)]
    return evaluator(predict, Data(halves))


def make_several(count=40):
    """Rows of ten images with three to five different captions each, some of which two images
    share, in any order; embeddings of few values that are equal for equal images and texts.
    """
    rng = np.random.default_rng(1)
    image = rng.permutation(np.repeat(np.arange(10), [3, 5, 4, 4, 4, 4, 4, 4, 3, 5]))
    place = np.array([np.sum(image[:row] == image[row]) for row in range(count)])
    text = np.where(place == 0, image // 2, 10 + 5 * image + place)  # the first one is shared
    values = lambda numbers: rng.integers(-1, 2, (60, 3)).astype(np.float32)[numbers]
    return {
        "image": image.astype(np.uint8).reshape(-1, 1, 1, 1),
        "image_embedding": values(image),
        "text": np.stack([text, np.full(count, 7)], axis=1).astype(np.int32),
        "text_embedding": values(text),
        "text_valid": np.ones((count, 2), bool),
        "valid": np.ones(count, bool),
    }


def expected_of(rows, k):
    """Recalls and chances in both directions, of loops over different images and all texts."""
    image, text = rows["image"].ravel(), rows["text"][:, 0]
    pairs, images = {*zip(image, text)}, [*dict.fromkeys(image)]
    first = [[*image].index(one) for one in images]
    similarity = rows["image_embedding"][first] @ rows["text_embedding"].T  # [images, texts]
    right = np.array([[(one, other) in pairs for other in text] for one in images])
    found = {}
    for name, near, good in (
        ("image_to_text", similarity, right),
        ("text_to_image", similarity.T, right.T),
    ):
        hits, odds = [], []
        for row, correct in zip(near, good, strict=True):
            order = sorted(range(len(row)), key=lambda i: (-row[i], correct[i]))
            hits.append(any(correct[order[:k]]))
            missed = [(~correct).sum() - i for i in range(k)]
            odds.append(1 - np.prod(np.array(missed) / (len(row) - np.arange(k))))
        found[f"{name}_at_{k}"], found[f"{name}_at_{k}_chance"] = np.mean(hits), np.mean(odds)
    return found


@pytest.mark.parametrize("k", [1, 3])
def test_an_image_with_several_captions_is_one_candidate_and_each_caption_is_correct(k):
    rows, evaluator = make_several(), retrieval.make(k=k)
    found = evaluate(evaluator, rows)
    texts = len({*rows["text"][:, 0]})
    assert found == {
        name: pytest.approx(value)
        for name, value in {
            **expected_of(rows, k),
            "retrieval_images": 10,
            "retrieval_texts": texts,
        }.items()
    }
    assert 0 < found[f"text_to_image_at_{k}"] < 1
    same = found[f"image_to_text_at_{k}_chance"] == found[f"text_to_image_at_{k}_chance"]
    assert not same, "40 texts and 10 images"


def test_perfect_embeddings_of_several_captions_have_a_recall_of_one():
    rows = make_several()
    unshared = rows["text"][:, 0] >= 10
    rows["valid"] = rows["valid"] & unshared
    rows |= dict.fromkeys(retrieval.OUTPUTS, np.eye(10, dtype=np.float32)[rows["image"].ravel()])
    found = evaluate(retrieval.make(k=1), rows)
    assert found["image_to_text_at_1"] == found["text_to_image_at_1"] == 1


def test_rows_without_an_image_are_left_out():
    rows, kept = make_several(), np.arange(40) % 3 > 0
    found = evaluate(retrieval.make(k=1), rows | {"image_valid": kept})
    assert found == evaluate(retrieval.make(k=1), rows | {"valid": kept})
    assert found != evaluate(retrieval.make(k=1), rows)
    with pytest.raises(UserError, match="no example of the test set has an image and a text"):
        evaluate(retrieval.make(k=1), rows | {"image_valid": np.zeros(40, bool)})


@pytest.mark.parametrize("name", retrieval.OUTPUTS)
def test_embeddings_that_are_not_finite_are_refused(name):
    rows = make_several()
    for bad in (np.nan, np.inf):
        broken = rows[name].copy()
        broken[11, 1] = bad
        with pytest.raises(UserError, match="^(image|text)_embedding: of .* not finite"):
            evaluate(retrieval.make(k=1), rows | {name: broken})


def test_perfect_embeddings_have_a_recall_of_one_and_constant_ones_of_zero():
    rows, evaluator = make_pairs(padding=0), retrieval.make(k=1)
    same = np.eye(10, dtype=np.float32)[rows["text"][:, 0]]
    for embedding, expected in ((same, 1), (np.ones_like(same), 0)):
        found = evaluate(evaluator, rows | dict.fromkeys(retrieval.OUTPUTS, embedding))
        assert found["image_to_text_at_1"] == found["text_to_image_at_1"] == expected


@pytest.mark.parametrize("k", [1, 2, 4, 9])
def test_chance_is_the_share_of_sets_of_candidates_with_a_correct_one(k):
    groups = np.array([0, 0, 0, 1, 1, 2])
    drawn = [*itertools.combinations(range(6), min(k, 6))]
    hits = [any(groups[i] == group for i in some) for group in groups for some in drawn]
    assert retrieval.chance(np.bincount(groups)[groups], 6, k) == pytest.approx(np.mean(hits))


def test_retrieval_refuses_what_it_cannot_do():
    for k in (0, (), (1, 0), 1.5, "five"):
        with pytest.raises(UserError, match="should be positive numbers"):
            retrieval.make(k=k)
    rows, evaluator = make_pairs(), retrieval.make()
    rows["text_valid"] = np.zeros_like(rows["text_valid"])
    with pytest.raises(UserError, match="no example of the test set has an image and a text"):
        evaluate(evaluator, rows)


def test_masked_tokens_under_each_condition():
    """A model that knows every masked token of number 4 or less, and the others if the image of the
    example is there; its patches have an error of 1 with its text, and of 2 without.
    """
    rng = np.random.default_rng(0)
    image = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    batch = {
        "image": image,
        "text": rng.integers(1, 9, (6, 5)).astype(np.int32),
        "text_valid": np.arange(5) < np.array([[5], [3], [0], [5], [2], [5]]),
        "valid": np.array([True, True, True, True, True, False]),
    }
    masked = batch["text_valid"] & (np.arange(5) % 2 == 0)
    evaluator = masked_tokens.make()

    def predict(changed):
        own = (changed["image"] == image)[:, 0, 0] & changed["image_valid"][:, None]
        right = masked & ((changed["text"] <= 4) | own)
        mine = (changed["text"] == batch["text"]).all(1) & changed["text_valid"].any(1)
        rows = {"text_correct": right, "text_masked": masked, "patch_error": np.where(mine, 1.0, 2)}
        return jax.device_get(evaluator.reduce(rows, changed))

    words = ("[PAD]", "a", "[CLS]", "dog", "runs", "cat", "the", "red", "blue")
    vocabulary = types.SimpleNamespace(tokens=words, special={"padding": 0, "begin": 2})
    rows = [0, 1, 3, 4]
    text, hidden = batch["text"][rows], masked[rows]
    for known in (None, vocabulary):
        found = evaluator(predict, Data([batch], known))
        counted = hidden & (text != 2) if known else hidden
        share = (text <= 4)[counted].mean()
        assert found["masked_tokens"] == 1
        assert found["masked_tokens_shuffled"] == pytest.approx(share)
        assert found["masked_tokens_alone"] == pytest.approx(share)
        assert found["masked_patches"] == 1
        assert found["masked_patches_shuffled"] == found["masked_patches_alone"] == 2
        assert ("masked_content" in found) == bool(known)
    content = hidden & np.isin(text, (3, 4, 5, 7, 8))
    assert found["masked_content_alone"] == pytest.approx((text <= 4)[content].mean())
    skipped = masked_tokens.make(skip=(1, 2, 3, 4))(predict, Data([batch]))
    assert skipped["masked_tokens_alone"] == 0 and skipped["masked_tokens"] == 1

    has_image = np.array([True, False, True, True, False, True])  # rows 0 and 3 have both
    found = evaluator(predict, Data([batch | {"image_valid": has_image}]))
    share = (batch["text"][[0, 3]] <= 4)[masked[[0, 3]]].mean()
    assert (found["masked_tokens"], found["masked_tokens_alone"]) == (1, pytest.approx(share))
    for image_valid in (np.zeros(6, bool), np.arange(6) == 0):
        with pytest.raises(UserError, match="no batch of the test set has two examples with an"):
            evaluator(predict, Data([batch | {"image_valid": image_valid}]))


def test_content_words_of_each_kind_of_tokenizer():
    kinds = {
        "words": (["the", "dog", "##the"], [2, 3]),
        "byte-level BPE": (["the", "Ġthe", "ĠThe", "Ġdog", "Ġ", "Ġtheory", "."], [4, 6]),
        "SentencePiece": (["▁the", "▁A", "▁dog", "▁", "ing", "▁."], [3, 5]),
        "BPE of words": (["the</w>", "the", "ory</w>", ".</w>", "a</w>", "dog</w>"], [2, 3, 6]),
    }
    for name, (tokens, content) in kinds.items():
        words = types.SimpleNamespace(tokens=["[PAD]", *tokens], special={"padding": 0})
        found = masked_tokens.uncounted(words, ())
        assert found["tokens"] == [0]
        assert sorted({*range(1, 1 + len(tokens))} - {*found["tokens_content"]}) == content, name


def test_the_other_example_is_from_anywhere_in_the_test_set(tmp_path):
    """20 examples of each of eight classes, one class after another, in batches of 20."""
    label = np.repeat(np.arange(8), 20)
    text = np.stack([label + 1, np.arange(160) + 20], axis=1).astype(np.int32)
    image = np.stack([label, np.arange(160)], axis=1).astype(np.uint8).reshape(-1, 1, 2, 1)
    arrays = dict(image=image, text=text, text_valid=np.ones_like(text, bool))
    np.savez(tmp_path / "set.npz", **arrays)
    source = f"array_file({str(tmp_path / 'set.npz')!r}, fields=(image, text, text_valid))"
    data = make_data(
        train=source,
        test=source,
        batch_size=20,
        train_transform="",
        eval_transform="",
        fields=("text", "text_valid"),
    )
    evaluator, pairs = masked_tokens.make(), []

    def predict(batch):
        pairs.extend(zip(batch["image"][:, 0, 1, 0], batch["text"][:, 1] - 20))
        same = batch["text"][:, :1] - 1 == batch["image"][:, 0, :1, 0]  # [B, 1], of one class
        rows = {"text_correct": same, "text_masked": np.ones_like(same), "patch_error": same[:, 0]}
        return jax.device_get(evaluator.reduce(rows | {"text": batch["text"][:, :1]}, batch))

    found = evaluator(predict, data)
    assert found["masked_tokens"] == 1 and found["masked_tokens_shuffled"] < 0.3
    assert found["masked_patches_shuffled"] < 0.3
    others = [(int(a), int(b)) for a, b in pairs if a != b]
    assert len(others) == 2 * 160, "under both conditions, no example has its own"
    assert {*range(160)} == {a for a, _ in others} == {b for _, b in others}


class Letters:
    """A vocabulary of letters, between two special tokens."""

    special = {"padding": 0, "begin": 1, "end": 2}

    def encode(self, texts):
        for text in texts:
            yield [1, *(3 + ord(letter) - ord("a") for letter in text if letter != " "), 2]


def test_zero_shot_chooses_the_class_whose_prompts_are_nearest():
    """Texts as counts of letters; images are those of the names of their classes."""
    names = ("abc", "cde", "xyz", "bbb", "zzy")
    count = lambda numbers: np.bincount(numbers, minlength=30)[3:].astype(np.float32)
    class_counts = np.stack([count(row[1:-1]) for row in Letters().encode(names)])
    seen = []

    def predict(batch):
        rows = [row[valid] for row, valid in zip(batch["text"], batch["text_valid"], strict=True)]
        seen.extend(tuple(row) for row in rows)
        text = np.stack([count(row) if len(row) else np.zeros(27, np.float32) for row in rows])
        text = text / np.maximum(np.linalg.norm(text, axis=1, keepdims=True), 1)
        outputs = {"text_embedding": text, "image_embedding": batch["image"]}
        return evaluator.reduce(outputs, batch)

    labels = np.array([0, 1, 2, 3, 4, 0, 1, 2])
    image = class_counts[labels]
    image[5] = class_counts[2]  # which is then taken for another class
    rows = {
        "image": image,
        "label": labels,
        "text": np.zeros((8, 9), np.int32),
        "text_valid": np.zeros((8, 9), bool),
        "valid": np.arange(8) < 7,
    }
    halves = [{name: x[i : i + 4] for name, x in rows.items()} for i in (0, 4)]
    evaluator = zero_shot.make(prompts=("q {}", "{} q q"))
    found = evaluator(predict, Data(halves, Letters(), names))
    assert found == {"zero_shot": pytest.approx(6 / 7)}
    imaged = [half | {"image_valid": np.array([True, False, True, True])} for half in halves]
    found = evaluator(predict, Data(imaged, Letters(), names))
    assert found == {"zero_shot": 1}, "without the row that is taken for another class"
    texts = [text for name in names for text in (f"q {name}", f"{name} q q")]
    assert seen[:10] == [tuple(row) for row in Letters().encode(texts)][:10]
    long = zero_shot.make(prompts="{} aaaaaaaaaaaaaaaaa", names=names)
    evaluator, seen = long, []
    long(predict, Data(halves, Letters()))
    assert seen[0] == (1, 3, 4, 5, 3, 3, 3, 3, 2), "the first tokens and the end"


def test_zero_shot_needs_a_vocabulary_names_and_prompts():
    for prompts in ("a photo", (), "{} {}"):
        with pytest.raises(UserError, match="write '{}' once"):
            zero_shot.make(prompts=prompts)
    with pytest.raises(UserError, match="no vocabulary"):
        zero_shot.make()(None, Data([]))
    with pytest.raises(UserError, match="no names of classes: give `names`"):
        zero_shot.make()(None, Data([], Letters()))
