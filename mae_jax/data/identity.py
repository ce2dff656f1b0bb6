"""What a run records of its data, and compares when it resumes or reads other data."""

from collections.abc import Mapping, Sequence

from mae_jax.data.sources import Source
from mae_jax.types import UserError

VOCABULARY = "vocabulary"
"""Key of the fingerprint of the vocabulary, if the training set has one."""


def fingerprints(sources: Mapping[str, Source]) -> dict[str, str]:
    """Fingerprint of each split's list of examples, of the vocabulary of their texts ('vocabulary')
    and of how decoding differs from earlier versions ('reading'), where there are such.
    """
    vocabulary = sources["train"].vocabulary
    readings = {source.reading: None for source in sources.values() if source.reading}
    return {
        **{
            split: f"{source.num_examples} {source.digest}".strip()
            for split, source in sources.items()
        },
        **({VOCABULARY: vocabulary.fingerprint} if vocabulary else {}),
        **({"reading": "; ".join(readings)} if readings else {}),
    }


def check_test(sources: Mapping[str, Source], fields: Sequence[str]) -> None:
    """Raises UserError if texts of the training and of the test set are read, and their
    vocabularies differ.
    """
    recorded = fingerprints({"train": sources["train"]})
    if "text" in fields:
        check_vocabulary("config.data.test", recorded, sources["test"])


def check_vocabulary(where: str, recorded: Mapping[str, str], source: Source) -> None:
    """Checks that the texts of a source have the vocabulary of a training set.

    Args:
        where: the source, for messages.
        recorded: `fingerprints` of the training set.

    Raises:
        UserError: both have a vocabulary and these differ, so numbers would mean other tokens.
    """
    if source.vocabulary is None or VOCABULARY not in recorded:
        return
    ours, theirs = source.vocabulary.fingerprint, recorded[VOCABULARY]
    if ours != theirs:
        raise UserError(
            f"the texts of {where} have the vocabulary {ours}, and those of the training set "
            f"{theirs} (number of tokens, hash): read them with the same tokenizer"
        )
