"""Trains tokenizers on captions: of whole words, or of pieces of words with the library
`tokenizers`. All work on lower-case text in Unicode NFC, and put [CLS] before a text and [SEP]
after it.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from mae_jax.data.vocabulary import SPECIAL, Vocabulary, check_library, of_words, split
from mae_jax.spec import check_choice
from mae_jax.types import UserError

_BYTES = 256
_ALPHABET = 1000  # different characters that pieces of words are made of


def train(texts: Iterable[str], kind: str, size: int) -> Vocabulary:
    """Trains a tokenizer.

    Args:
        texts: captions.
        kind: one of `KINDS`: 'words', whole words, the most frequent ones; 'wordpiece', pieces of
            words as in BERT (Schuster and Nakajima 2012, Devlin et al. 2018); 'bpe', merged pairs
            of bytes as in GPT-2 (Sennrich et al. 2015, Radford et al. 2019).
        size: largest number of tokens, the five special ones included.

    Raises:
        UserError: the kind is unknown, the size too small, or the library missing.
    """
    check_choice("kind", kind, KINDS)
    least = len(SPECIAL) + (_BYTES if kind == "bpe" else 1)
    if size < least:
        raise UserError(f"size {size}: a vocabulary of kind {kind!r} has at least {least} tokens")
    vocabulary = KINDS[kind](texts, size)
    if (found := len(vocabulary)) > size:
        raise UserError(f"size {size}: the characters alone need {found} tokens: raise it")
    if found <= len(SPECIAL):
        raise UserError("there are no words in the captions: a tokenizer cannot be trained")
    return vocabulary


def _words(texts: Iterable[str], size: int) -> Vocabulary:
    counts = Counter(word for text in texts for word in split(text))
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return of_words(ordered[: size - len(SPECIAL)])


def _wordpiece(texts: Iterable[str], size: int) -> Vocabulary:
    check_library("kind 'wordpiece'")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL["unknown"]))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    texts = list(texts)
    alphabet, inner = _characters(texts, tokenizer.pre_tokenizer)
    # The trainer numbers characters inside of words in the order of a hash table that changes
    # from run to run, and breaks ties by these numbers; special tokens have fixed numbers.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL.values(), *(f"##{character}" for character in inner)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    return _trained(tokenizer, trainer, texts)


def _characters(texts: Iterable[str], pre_tokenizer) -> tuple[list[str], list[str]]:
    """The `_ALPHABET` most frequent characters, and those of them that are not only first in words,
    in order.
    """
    counts, inner, normalizer = Counter(), set(), _normalizer()
    for text in texts:
        for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text)):
            counts.update(word)
            inner.update(word[1:])
    ordered = sorted(counts, key=lambda character: (-counts[character], character))
    alphabet = sorted(ordered[:_ALPHABET])
    return alphabet, [character for character in alphabet if character in inner]


def _bpe(texts: Iterable[str], size: int) -> Vocabulary:
    check_library("kind 'bpe'")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    return _trained(tokenizer, trainer, texts)


def _trained(tokenizer, trainer, texts: Iterable[str]) -> Vocabulary:
    """The vocabulary of a tokenizer of the library, trained on texts."""
    from tokenizers import processors

    tokenizer.normalizer = _normalizer()
    tokenizer.train_from_iterator(texts, trainer)
    ends = [SPECIAL["begin"], SPECIAL["end"]]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{ends[0]} $A {ends[1]}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ends],
    )
    content = json.loads(tokenizer.to_str())
    special = {*SPECIAL.values()}
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] in special]
    return Vocabulary(content)


def _normalizer():
    from tokenizers import normalizers

    return normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])


KINDS: Mapping[str, Callable[[Iterable[str], int], Vocabulary]] = {
    "words": _words,
    "wordpiece": _wordpiece,
    "bpe": _bpe,
}
"""Kind of tokenizer -> the function (texts, size) that trains it."""
