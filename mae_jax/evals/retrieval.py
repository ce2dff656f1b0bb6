"""Retrieval of texts by images, and of images by texts, from the embeddings of the test split: the
share of queries with a correct candidate among the nearest ones (recall at K).

Texts that are equal token by token count as one, and so do images that are equal pixel by pixel,
such as those of an image with several captions. An image and a text are correct for each other if
an example has both. Without this, one of several equal candidates would be the only hit.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.evals.features import EvalData, Evaluator, Predict, check_finite, check_limit
from mae_jax.types import Batch, Metric, UserError, with_image

OUTPUTS = ("image_embedding", "text_embedding")
FIELDS = ("text", "text_valid")
DIRECTIONS = ("image_to_text", "text_to_image")
ROWS = 256
"""Queries compared at once, so that memory does not grow with their square."""
ADVICE = "retrieval is for methods that compare images with texts, as clip does"
_WORDS = 4  # of 32 bits in the hash of an image


def make(*, k: int | Sequence[int] = (1, 5, 10), limit: int | None = None) -> Evaluator:
    """An evaluator: run(predict, data) -> recalls in [0, 1] on the pairs of the test split:
    'image_to_text_at_1' and so on, 'text_to_image_at_1', each for every K;
    'image_to_text_at_1_chance' and so on, the expected recall of random similarities; and
    'retrieval_images' and 'retrieval_texts', the numbers of different images and texts. Examples
    without an image or without a text are left out.

    Candidates are the texts of all examples, or all different images; queries are the same. Among
    equally similar candidates, a correct one comes last, so constant embeddings score 0. A perfect
    ranking scores 1 in both directions, as candidates that are equal are all correct.

    Args:
        k: how many of the nearest candidates count; one number or several.
        limit: maximum number of test examples; None: all.

    Raises:
        UserError: an argument out of range; when called: no example with an image and a text, or
            embeddings that are not finite.
    """
    counts = tuple(k) if isinstance(k, (tuple, list)) else (k,)
    if not counts or any(type(one) is not int or one < 1 for one in counts):
        raise UserError(f"retrieval: k={k!r} should be positive numbers, e.g. (1, 5, 10)")
    check_limit("retrieval", limit)

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        batches = map(with_hashes, data.eval("test", limit))
        parts = [jax.device_get(predict(batch)) for batch in batches]
        rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        used = rows["valid"]
        if not used.any():
            raise UserError(
                "retrieval: no example of the test set has an image and a text: choose another set"
            )
        images, texts = sides({name: row[used] for name, row in rows.items()})
        metrics = {}
        for name, queries, keys in zip(DIRECTIONS, (images, texts), (texts, images), strict=True):
            found, total = ranks(queries, keys), len(keys.numbers)
            for one in counts:
                metrics[f"{name}_at_{one}"] = float(np.mean(found.wrong < one))
                metrics[f"{name}_at_{one}_chance"] = chance(found.correct, total, one)
        sizes = {"images": images.numbers, "texts": texts.numbers}
        return metrics | {f"retrieval_{kind}": float(n.max() + 1) for kind, n in sizes.items()}

    share, further = Metric(), Metric(table="further", ranked=False)
    names = [f"{name}_at_{one}" for name in DIRECTIONS for one in counts]
    number = further._replace(unit="", decimals=0)
    return Evaluator(
        name="retrieval",
        run=run,
        outputs=OUTPUTS,
        needs={"test": FIELDS},
        reduce=reduce,
        adds=added,
        metrics=dict.fromkeys(names, share)
        | {f"{name}_chance": further for name in names}
        | {"retrieval_images": number, "retrieval_texts": number},
        advice=ADVICE,
    )


def with_hashes(batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """A batch with the field 'image_hash' [B, 4] uint32 for `reduce`, of the pixels."""
    size = np.dtype(np.uint32).itemsize * _WORDS
    digests = [
        hashlib.blake2b(np.ascontiguousarray(image), digest_size=size).digest()
        for image in batch["image"]
    ]
    hashes = np.frombuffer(b"".join(digests), np.uint32).reshape(-1, _WORDS)
    return {**batch, "image_hash": hashes}


def added(batch: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape of the field that `with_hashes` adds."""
    return {"image_hash": jax.ShapeDtypeStruct((*batch["valid"].shape, _WORDS), np.uint32)}


def reduce(outputs: Mapping[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
    """Embeddings, hashes of images, texts without their padding, and which rows have both."""
    words = batch["text_valid"].astype(bool)
    return {
        **outputs,
        "image_hash": batch["image_hash"],
        "text": jnp.where(words, batch["text"] + 1, 0),
        "valid": batch["valid"] & words.any(axis=1) & with_image(batch),
    }


class Side(NamedTuple):
    """The images, or the texts, of P pairs."""

    embeddings: np.ndarray
    """[N, E] float32."""
    numbers: np.ndarray
    """[N] int from 0, equal for equal ones."""
    pairs: np.ndarray
    """[P] int, the number of the one in each pair."""
    rows: np.ndarray
    """[N] int, the pair that each embedding is from."""


def sides(rows: Mapping[str, np.ndarray]) -> tuple[Side, Side]:
    """The different images, and the texts, of P pairs.

    Args:
        rows: results [P, ...] of `reduce`, of rows that have an image and a text.

    Raises:
        UserError: embeddings that are not finite.
    """
    for output in OUTPUTS:
        check_finite(output, rows[output])
    _, first, image = np.unique(rows["image_hash"], axis=0, return_index=True, return_inverse=True)
    text = np.unique(rows["text"], axis=0, return_inverse=True)[1].reshape(-1)
    embeddings = rows["image_embedding"][first]
    images = Side(embeddings, np.arange(len(first)), image.reshape(-1), first)
    return images, Side(rows["text_embedding"], text, text, np.arange(len(text)))


class Ranks(NamedTuple):
    """The ranks of N queries."""

    wrong: np.ndarray
    """[N] int, wrong candidates at least as similar as the best correct one."""
    correct: np.ndarray
    """[N] int, correct candidates."""


def ranks(queries: Side, keys: Side) -> Ranks:
    """How many candidates are before the first correct one, by the products of embeddings."""
    wrong, correct = [], []
    for start in range(0, len(queries.numbers), ROWS):
        chunk = slice(start, start + ROWS)
        similarity = queries.embeddings[chunk] @ keys.embeddings.T  # [n, keys]
        right = matches(queries.numbers[chunk], queries, keys)
        best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
        wrong.append(np.sum(~right & (similarity >= best), axis=1))
        correct.append(right.sum(axis=1))
    return Ranks(np.concatenate(wrong), np.concatenate(correct))


def matches(numbers: np.ndarray, queries: Side, keys: Side) -> np.ndarray:
    """Which keys are correct for queries of these numbers [n]: those that a pair has with such a
    one, [n, keys] bool.
    """
    found = np.zeros((len(numbers), keys.pairs.max() + 1), bool)
    places, pairs = np.nonzero(numbers[:, None] == queries.pairs)
    found[places, keys.pairs[pairs]] = True
    return found[:, keys.numbers]


def chance(correct: np.ndarray, total: int, k: int) -> float:
    """Expected recall at K of a random order of the candidates: of a query with c correct ones
    among N, 1 - C(N - c, K) / C(N, K).

    Args:
        correct: [queries] int, the number c of each.
        total: N.
    """
    sizes, queries = np.unique(correct, return_counts=True)
    drawn = np.arange(min(k, total))
    # [sizes, K]: shares of wrong candidates among those that are left at each draw
    wrong = np.clip((total - sizes[:, None] - drawn) / (total - drawn), 0, 1)
    return float(np.average(1 - wrong.prod(axis=1), weights=queries))
