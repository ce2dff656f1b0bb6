"""How much a model of images and texts uses one to predict the other: accuracy on masked tokens
with the image, with another image, and without one; and the error of masked patches with the text,
with another text, and without one. All conditions share their masks.

A gap between the true and another condition shows that a model connects the two. The accuracy alone
does not, as many tokens follow from the rest of the text (arXiv 2109.02040).
"""

from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.evals.features import EvalData, Evaluator, Predict, check_limit
from mae_jax.types import Batch, Metric, UserError, with_image

OUTPUTS = ("text_correct", "text_masked", "patch_error")
CONDITIONS = ("", "_shuffled", "_alone")
"""Ends of the names of metrics: with the example's own other part, another example's, and none."""
FUNCTION_WORDS = frozenset(
    "a an the this that these those it its is are was be we you i he she they there here of in on "
    "at to for from by with against before behind and or not as . , : ; ! ? - / ( ) '".split()
)
"""Words that are no content words."""
WORD_STARTS = "Ġ▁"
"""Marks of a blank before a token: byte-level BPE (GPT-2) and SentencePiece."""
WORD_END = "</w>"
"""Mark of the last token of a word: BPE (Sennrich et al. 2015), as in CLIP."""
ADVICE = "masked_tokens is for methods that predict masked tokens, as m3ae does"


def make(*, skip: Sequence[int] = (), limit: int | None = None) -> Evaluator:
    """An evaluator: run(predict, data) -> on the test split 'masked_tokens', the fraction of masked
    tokens that are predicted correctly; 'masked_tokens_shuffled', with the image of another
    example; 'masked_tokens_alone', without an image; the same of content words only, as
    'masked_content', if the data have a vocabulary; 'masked_patches', the mean error of masked
    patches; and 'masked_patches_shuffled' and 'masked_patches_alone', with the text of another
    example and without a text.

    Examples without an image or without a text are left out. The other example is from anywhere in
    the test set: the set is read in a fixed random order, and it is the one before in the batch.

    Args:
        skip: numbers of tokens that do not count, besides the special tokens of the vocabulary.
        limit: maximum number of test examples; None: all.

    Raises:
        UserError: a limit out of range; when called: no batch has two examples with both.
    """
    check_limit("masked_tokens", limit)

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        left_out = uncounted(data.source("test").vocabulary, skip)
        sums: dict[str, np.ndarray] = {}
        for batch in data.eval("test", limit, shuffled=True):
            for part, condition, changed in conditions(batch):
                for kind, counted in counts(jax.device_get(predict(changed)), left_out).items():
                    if part in kind or not part:
                        name = f"masked_{kind.removeprefix('tokens_')}{condition}"
                        sums[name] = sums.get(name, 0) + counted
        if not sums["masked_patches"][1]:
            raise UserError(
                "masked_tokens: no batch of the test set has two examples with an image and a "
                "text: choose another set"
            )
        return {name: right / count for name, (right, count) in sums.items() if count}

    error = Metric(unit="", decimals=4, lower_is_better=True, table="further")
    shown = {"tokens": Metric(), "content": Metric(table="further"), "patches": error}
    return Evaluator(
        name="masked_tokens",
        run=run,
        outputs=OUTPUTS,
        needs={"test": ("text", "text_valid")},
        reduce=reduce,
        adds=lambda batch: {"counted": batch["valid"]},
        metrics={
            f"masked_{kind}{end}": metric._replace(ranked=not end)
            for kind, metric in shown.items()
            for end in CONDITIONS
        },
        advice=ADVICE,
    )


def uncounted(vocabulary, skip: Sequence[int]) -> dict[str, list[int]]:
    """'tokens' and, if there is a vocabulary, 'tokens_content' -> numbers of those left out."""
    if vocabulary is None:
        return {"tokens": list(skip)}
    skipped = {*skip, *vocabulary.special.values()}
    words = enumerate(words_of(vocabulary.tokens))
    function = (number for number, word in words if word == "" or word in FUNCTION_WORDS)
    return {"tokens": sorted(skipped), "tokens_content": sorted(skipped.union(function))}


def words_of(tokens: Sequence[str]) -> Iterator[str | None]:
    """The word in lower case that each token can be, without the marks of its kind of tokenizer;
    None: it is a part of a longer word. A token that is a blank is ''.
    """
    marked = any(token.endswith(WORD_END) for token in tokens)
    for token in tokens:
        part = marked and not token.endswith(WORD_END)
        yield None if part else token.removesuffix(WORD_END).lstrip(WORD_STARTS).lower()


def conditions(batch: Mapping[str, np.ndarray]) -> Iterator[tuple[str, str, Mapping]]:
    """The batch under each condition: (what it is a condition of, 'tokens', 'patches' or '' for
    both; one of CONDITIONS; the batch). Its field 'counted' [B] are the rows that count.
    """
    has_text = np.asarray(batch["text_valid"]).astype(bool).any(axis=1)
    both = batch["valid"] & has_text & with_image(batch)
    indices, full = np.flatnonzero(both), np.ones(len(both), bool)
    other = np.arange(len(both))
    other[indices] = np.roll(indices, 1)
    counted = both & (len(indices) > 1)
    base = {**batch, "image_valid": full, "counted": counted}
    yield "", "", base
    yield "tokens", "_shuffled", {**base, "image": batch["image"][other]}
    yield "tokens", "_alone", {**base, "image_valid": ~full}
    rolled = {name: batch[name][other] for name in ("text", "text_valid")}
    yield "patches", "_shuffled", base | rolled
    yield "patches", "_alone", {**base, "text_valid": np.zeros_like(batch["text_valid"])}


def reduce(outputs: Mapping[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
    """The outputs with the texts and the rows that count; no others have masked tokens."""
    masked = outputs["text_masked"] & batch["counted"][:, None]
    kept = {"text": batch["text"], "counted": batch["counted"]}
    error = jnp.where(batch["counted"], outputs["patch_error"], 0)
    return {**outputs, **kept, "text_masked": masked, "patch_error": error}


def counts(
    rows: Mapping[str, np.ndarray], left_out: Mapping[str, Sequence[int]]
) -> dict[str, np.ndarray]:
    """Kind -> (sum of what is measured, how many were): of the tokens but for those left out, and
    'patches', of the errors of images.
    """
    found = {"patches": np.array([rows["patch_error"].sum(), rows["counted"].sum()], np.float64)}
    for kind, numbers in left_out.items():
        masked = rows["text_masked"] & ~np.isin(rows["text"], numbers)
        right = rows["text_correct"] & masked
        found[kind] = np.array([right.sum(), masked.sum()], np.float64)
    return found
