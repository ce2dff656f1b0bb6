"""Zero-shot classification (CLIP, arXiv 2103.00020, section 3.1): the class of an image is the one
whose prompts, such as 'a photo of a dog', are most similar to it. No label is used in training.
"""

from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np

from mae_jax.evals.features import EvalData, Evaluator, Predict, check_finite, check_limit
from mae_jax.types import Batch, Metric, UserError, with_image

OUTPUTS = ("image_embedding", "text_embedding")
FIELDS = ("text", "text_valid")
ADVICE = "zero_shot is for methods that compare images with texts, as clip does"


def make(
    *,
    prompts: str | Sequence[str] = ("a photo of a {}",),
    names: Sequence[str] = (),
    limit: int | None = None,
) -> Evaluator:
    """An evaluator: run(predict, data) -> {'zero_shot': top-1 accuracy in [0, 1] on the test split}
    of classes by the cosine similarity of an image and the mean embedding of a class's prompts.

    Args:
        prompts: one or several texts with '{}' for the name of the class.
        names: names of all classes in the order of their labels; (): those of the data. Of classes
            with one name, the first is predicted: CLIP's names of ImageNet have two 'sunglasses'.
        limit: maximum number of test examples; None: all.

    Raises:
        UserError: a prompt without '{}'; when called: data without a vocabulary or class names, or
            with another number of classes than `names`; different names with equal tokens;
            embeddings that are not finite.
    """
    templates = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    if not templates or not all(text.count("{}") == 1 for text in templates):
        raise UserError(f"zero_shot: prompts={prompts!r}: write '{{}}' once in each for the class")
    check_limit("zero_shot", limit)

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        source = data.source("test")
        if source.vocabulary is None:
            raise UserError(
                "zero_shot: the texts of config.data.test have no vocabulary: copy the "
                "tokenizer.json of the model to the folder of the run as vocabulary.json"
            )
        classes = class_names(names, source.names.get("label", ()))
        texts = [text.replace("{}", name) for name in classes for text in templates]
        tokens, directions, right, count = [*source.vocabulary.encode(texts)], None, 0, 0
        for batch in data.eval("test", limit):
            if directions is None:
                tokens = [cut(numbers, batch["text"].shape[1]) for numbers in tokens]
                check_different(classes, tokens)
                rows = [predict(one)["text_embedding"] for one in batches(tokens, batch)]
                size = len(batch["text"])
                rows = np.concatenate([np.asarray(one)[:size] for one in rows])[: len(texts)]
                check_finite("text_embedding", rows)
                # [classes, prompts, E] to [classes, E]
                directions = unit(rows.reshape(len(classes), len(templates), -1).mean(axis=1))
            found = jax.device_get(predict(batch))
            valid = found["valid"]
            if (largest := found["label"][valid].max(initial=0)) >= len(classes):
                raise UserError(
                    f"zero_shot: config.data.test has the label {largest}, and {len(classes)} "
                    "names of classes are known: give all as `names`"
                )
            embeddings = found["image_embedding"][valid]
            check_finite("image_embedding", embeddings)
            similarity = embeddings @ directions.T  # [n, classes]
            right += np.sum(similarity.argmax(axis=1) == found["label"][valid])
            count += valid.sum()
        return {"zero_shot": float(right / count)} if count else {}

    return Evaluator(
        name="zero_shot",
        run=run,
        outputs=OUTPUTS,
        needs={"test": ("label", *FIELDS)},
        reduce=reduce,
        metrics={"zero_shot": Metric()},
        class_names=not names,
        advice=ADVICE,
    )


def class_names(given: Sequence[str], known: Sequence[str]) -> list[str]:
    """The names of the classes: those of the data, or those given in their place.

    Raises:
        UserError: there are none, or not as many as the data have.
    """
    if not given and not known:
        raise UserError("zero_shot: config.data.test has no names of classes: give `names`")
    if given and known and len(given) != len(known):
        raise UserError(
            f"zero_shot: names={given!r} are {len(given)}, and config.data.test has {len(known)} "
            "classes: give one for each, in the order of the labels"
        )
    return [str(name) for name in given or known]


def cut(numbers: list[int], length: int) -> list[int]:
    """A text of at most `length` tokens: the first and the last are used."""
    return numbers if len(numbers) <= length else [*numbers[: length - 1], numbers[-1]]


def check_different(classes: Sequence[str], tokens: Sequence[Sequence[int]]) -> None:
    """Raises UserError if classes of different names have equal prompts, as unknown words have.

    Args:
        classes: names of the classes.
        tokens: of the prompts of all classes, class by class.
    """
    count, owners = len(tokens) // len(classes), {}
    for number, name in enumerate(classes):
        prompts = tuple(map(tuple, tokens[number * count : (number + 1) * count]))
        if (other := owners.setdefault(prompts, name)) != name:
            raise UserError(
                f"zero_shot: the prompts of {other!r} and {name!r} have equal tokens, as the "
                "tokenizer does not know these words or the prompts are cut: give other `names`"
            )


def reduce(outputs: Mapping[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
    """The embeddings, the labels, and which rows have an image. With it, no other evaluator
    computes the embeddings.
    """
    return {**outputs, "label": batch["label"], "valid": batch["valid"] & with_image(batch)}


def batches(
    tokens: Sequence[Sequence[int]], like: Mapping[str, np.ndarray]
) -> Iterator[Mapping[str, np.ndarray]]:
    """Batches of this process's rows with texts in place of those of a batch. All processes have
    the same texts, so the first rows of the outputs are those of the first process.

    Args:
        tokens: numbers of each text, at most T.
        like: a batch with 'text' [B, T] and 'text_valid' [B, T].
    """
    size = len(like["text"])
    for start in range(0, len(tokens), size):
        text, valid = np.zeros_like(like["text"]), np.zeros_like(like["text_valid"])
        for row, numbers in enumerate(tokens[start : start + size]):
            text[row, : len(numbers)], valid[row, : len(numbers)] = numbers, True
        yield {**like, "text": text, "text_valid": valid}


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows [N, E] scaled to length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
