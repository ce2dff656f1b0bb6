"""The tokenizer of a model of texts, beside its weights: `tokenizer.json` in a folder of Hugging
Face, and `vocabulary.json`, with the same content, in a run.
"""

import logging
from collections.abc import Mapping
from typing import Any

from mae_jax.data.vocabulary import Vocabulary
from mae_jax.types import UserError
from mae_jax.weights.model import Found, Model

logger = logging.getLogger(__name__)

LARGEST = 2
"""The eos_token_id with which transformers takes the largest number in a text of CLIP as its end,
as OpenAI's code does."""
SPECIAL = dict(bos="begin", eos="end", pad="padding", unk="unknown")
"""Special tokens of transformers -> roles in a `Vocabulary`."""


def tokenizer_of(found: Found, size: int) -> Mapping[str, Any]:
    """Content of the tokenizer.json of a folder; {}: it has none.

    Args:
        size: number of different tokens of the model.

    Raises:
        UserError: it is damaged, or has more tokens.
    """
    if found.tokenizer:
        tokens = len(Vocabulary(found.tokenizer, f"tokenizer.json of {found.name}"))
        if tokens > size:
            raise UserError(
                f"tokenizer.json of {found.name} has {tokens} tokens, and the model {size}: remove "
                "the file, or replace it"
            )
    return found.tokenizer


def tokenizer_files(model: Model) -> tuple[dict[str, int], dict[str, Any]]:
    """The tokenizer of a model for transformers, which pools CLIP's texts at their end token:
    numbers of special tokens for config.json, and JSON files, name -> content.

    Raises:
        UserError: transformers would not find the end of a text.
    """
    if not model.vocabulary:
        logger.warning(
            "the run has no tokenizer: transformers will take the largest number in a text as its "
            "end, as for CLIP's own tokenizer"
        )
        return dict(eos_token_id=LARGEST), {}
    tokenizer = Vocabulary(model.vocabulary, "vocabulary.json of the run")
    roles = tokenizer.special
    if roles.get("end", LARGEST) == LARGEST:
        raise UserError(
            "transformers pools texts at their end token, and that of the run's tokenizer is "
            f"missing or has the number {LARGEST}, which is not supported: use --format stablehlo"
        )
    (numbers,) = tokenizer.encode(["a"])
    if roles["end"] not in numbers or numbers.index(roles["end"]) < len(numbers) - 1:
        raise UserError(
            f"transformers pools texts at the first {tokenizer.tokens[roles['end']]!r}, and the "
            "run's tokenizer does not end each text with the only one: use --format stablehlo"
        )
    roles = {"padding": roles["end"], **roles}
    known = {theirs: roles[ours] for theirs, ours in SPECIAL.items() if ours in roles}
    settings = {f"{theirs}_token": tokenizer.tokens[number] for theirs, number in known.items()}
    # This class reads tokenizer.json as it is; that of CLIP makes its own steps.
    settings |= dict(
        tokenizer_class="PreTrainedTokenizerFast", model_max_length=model.args["length"]
    )
    numbers = {f"{theirs}_token_id": known[theirs] for theirs in known if theirs != "unk"}
    return numbers, {"tokenizer.json": dict(model.vocabulary), "tokenizer_config.json": settings}
