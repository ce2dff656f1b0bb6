"""Retrieval of texts by images, and of images by texts, from the embeddings of the test split: the
share of queries with a correct candidate among the nearest ones (recall at K).

Texts that are equal token by token count as one: every candidate whose text equals that of the
query is correct. Without this, images that share a caption would have an arbitrary one as the hit.
"""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from mae_jax.evals.features import EvalData, Evaluator, Predict, check_limit
from mae_jax.types import Batch, Metric, UserError

OUTPUTS = ("image_embedding", "text_embedding")
FIELDS = ("text", "text_valid")
ROWS = 256
"""Queries compared at once, so that memory does not grow with their square."""
ADVICE = "retrieval is for methods that compare images with texts, as clip does"


def make(*, k: int | Sequence[int] = (1, 5, 10), limit: int | None = None) -> Evaluator:
    """An evaluator: run(predict, data) -> recalls in [0, 1] on the pairs of the test split:
    'image_to_text_at_1' and so on, 'text_to_image_at_1', each for every K; 'retrieval_at_1_chance',
    the expected recall of random similarities; and 'retrieval_texts', the number of different
    texts. Images without a text are left out.

    Candidates are all texts, or all images. Among equally similar candidates, a correct one comes
    last, so constant embeddings score 0. A perfect ranking scores 1 in both directions, as correct
    candidates include all with an equal text.

    Args:
        k: how many of the nearest candidates count; one number or several.
        limit: maximum number of test examples; None: all.

    Raises:
        UserError: an argument out of range; when called: no example with a text.
    """
    counts = tuple(k) if isinstance(k, (tuple, list)) else (k,)
    if not counts or any(type(one) is not int or one < 1 for one in counts):
        raise UserError(f"retrieval: k={k!r} should be positive numbers, e.g. (1, 5, 10)")
    check_limit("retrieval", limit)

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        parts = [jax.device_get(predict(batch)) for batch in data.eval("test", limit)]
        rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        used = rows["valid"]
        if not used.any():
            raise UserError("retrieval: no image of the test set has a text: choose another set")
        images, texts = (rows[name][used] for name in OUTPUTS)
        groups = np.unique(rows["text"][used], axis=0, return_inverse=True)[1].reshape(-1)
        metrics = {}
        for name, queries, keys in (
            ("image_to_text", images, texts),
            ("text_to_image", texts, images),
        ):
            found = ranks(queries, keys, groups)
            metrics |= {f"{name}_at_{one}": float(np.mean(found < one)) for one in counts}
        chances = {f"retrieval_at_{one}_chance": chance(groups, one) for one in counts}
        return metrics | chances | {"retrieval_texts": float(groups.max() + 1)}

    share, further = Metric(), Metric(table="further", ranked=False)
    names = [f"{name}_at_{one}" for name in ("image_to_text", "text_to_image") for one in counts]
    return Evaluator(
        name="retrieval",
        run=run,
        outputs=OUTPUTS,
        needs={"test": FIELDS},
        reduce=reduce,
        metrics=dict.fromkeys(names, share)
        | {f"retrieval_at_{one}_chance": further for one in counts}
        | {"retrieval_texts": further._replace(unit="", decimals=0)},
        advice=ADVICE,
    )


def reduce(outputs: Mapping[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
    """Embeddings, texts without their padding, and which rows have a text."""
    words = batch["text_valid"].astype(bool)
    return {
        **outputs,
        "text": jax.numpy.where(words, batch["text"] + 1, 0),
        "valid": batch["valid"] & words.any(axis=1),
    }


def ranks(queries: np.ndarray, keys: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """How many wrong candidates are at least as similar to each query as its best correct one, [N].

    Args:
        queries, keys: [N, D] float32, by their products; row i of both is a pair.
        groups: [N] int, equal for pairs whose texts are equal.
    """
    found = []
    for start in range(0, len(queries), ROWS):
        similarity = queries[start : start + ROWS] @ keys.T  # [n, N]
        right = groups[start : start + ROWS, None] == groups
        best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
        found.append(np.sum(~right & (similarity >= best), axis=1))
    return np.concatenate(found)


def chance(groups: np.ndarray, k: int) -> float:
    """Expected recall at K of a random order of the candidates: of a query with c correct ones
    among N, 1 - C(N - c, K) / C(N, K).
    """
    total, sizes = len(groups), np.bincount(groups)
    drawn = np.arange(min(k, total))
    # [texts, K]: shares of wrong candidates among those that are left at each draw
    wrong = np.clip((total - sizes[:, None] - drawn) / (total - drawn), 0, 1)
    return float(np.sum(sizes / total * (1 - wrong.prod(axis=1))))
