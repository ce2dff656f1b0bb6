"""Vocabularies: the numbers of tokens, and texts as such numbers.

A vocabulary is the content of a file `tokenizer.json` as the library `tokenizers` of Hugging Face
reads and writes it. Texts become numbers when a source is opened, and training reads numbers alone.
Vocabularies of whole words that are made here need no library.
"""

import functools
import hashlib
import importlib.util
import itertools
import json
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mae_jax.types import UserError

FILE = "vocabulary.json"
"""Name of a vocabulary in the folder of a prepared data set, and in a workdir."""
PADDING = 0
"""Number that fills texts up to one length; 'text_valid' is 0 there."""
SPECIAL: Mapping[str, str] = {
    "padding": "[PAD]",
    "unknown": "[UNK]",
    "begin": "[CLS]",
    "end": "[SEP]",
    "mask": "[MASK]",
}
"""Role -> token, in vocabularies that are trained here: the numbers 0 to 4."""
_NAMES: Mapping[str, tuple[str, ...]] = {
    "padding": ("[PAD]", "<pad>"),
    "unknown": ("[UNK]", "<unk>"),
    "begin": ("[CLS]", "<s>", "<|startoftext|>"),
    "end": ("[SEP]", "</s>", "<|endoftext|>"),
    "mask": ("[MASK]", "<mask>"),
}
_SETTINGS = ("version", "truncation", "padding")  # keys that change no number of a text
_CHUNK = 1024  # texts that the library encodes at a time


class Vocabulary:
    """The tokens of a tokenizer, and how it splits texts.

    Args:
        content: parsed content of a `tokenizer.json`.
        where: name of the file, for messages.

    Raises:
        UserError: it is not of this format.
    """

    def __init__(self, content: Mapping[str, Any], where: str = "the vocabulary"):
        try:
            numbers = _numbers(content)
            tokens = [""] * (1 + max(numbers.values()))
            for token, number in numbers.items():
                tokens[number] = token
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise UserError(
                f"{where} is no tokenizer.json of the library tokenizers ({error!r}): train one "
                "with mae-jax tokenizer"
            ) from error
        self.content, self.where = dict(content), where
        self.tokens: Sequence[str] = tokens
        """Token of each number; '' for numbers without one."""
        self.special: Mapping[str, int] = {
            role: next(numbers[name] for name in names if name in numbers)
            for role, names in _NAMES.items()
            if any(name in numbers for name in names)
        }
        """Role, a key of `SPECIAL` -> number, for the roles that the tokenizer has."""
        same = {key: value for key, value in content.items() if key not in _SETTINGS}
        self.hash = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:16]
        """Hash of the content, which the layout of the file does not change."""

    def __len__(self) -> int:
        """Size: one more than the largest number."""
        return len(self.tokens)

    @property
    def fingerprint(self) -> str:
        """'SIZE HASH': a run refuses texts of another vocabulary."""
        return f"{len(self)} {self.hash}"

    def encode(self, texts: Iterable[str]) -> Iterator[list[int]]:
        """Numbers of each text, with those that the tokenizer adds at its begin and end.

        Raises:
            UserError: the library `tokenizers` is missing, or refuses this tokenizer.
        """
        if self._words is None:
            texts = iter(texts)
            while chunk := list(itertools.islice(texts, _CHUNK)):
                yield from (encoding.ids for encoding in self._tokenizer.encode_batch(chunk))
            return
        unknown, begin, end = (self.special[role] for role in ("unknown", "begin", "end"))
        for text in texts:
            yield [begin, *(self._words.get(word, unknown) for word in split(text)), end]

    @functools.cached_property
    def ends(self) -> list[int]:
        """Numbers that the tokenizer adds at the end of each text."""
        if self._words is not None:
            return [self.special["end"]]
        encoding = self._tokenizer.encode("a")
        added = encoding.special_tokens_mask
        count = len(list(itertools.takewhile(bool, reversed(added))))
        return encoding.ids[len(added) - count :] if count < len(added) else []

    def unknown(self, text: str) -> list[str]:
        """The parts of a text that become the unknown token, in order."""
        unknown = self.special.get("unknown")
        if self._words is not None:
            return [word for word in split(text) if self._words.get(word, unknown) == unknown]
        encoding = self._tokenizer.encode(text)
        spans = zip(encoding.ids, encoding.offsets, strict=True)
        return [text[start:end].strip() for number, (start, end) in spans if number == unknown]

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of numbers, without special tokens."""
        numbers = [int(number) for number in numbers]
        if self._words is None:
            return self._tokenizer.decode(numbers, skip_special_tokens=True)
        left = set(self.special.values()) - {self.special["unknown"]}
        return " ".join(self.tokens[number] for number in numbers if number not in left)

    def save(self, path: Path) -> None:
        """Writes a `tokenizer.json`, atomically.

        Args:
            path: the file, or an existing folder for the file `FILE`.
        """
        path = path / FILE if path.is_dir() else path
        text = json.dumps(self.content, indent=1, ensure_ascii=False)
        data = f"{text}\n".encode()  # before the file exists, as it may fail
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.write_bytes(data)
        os.replace(temporary, path)

    @functools.cached_property
    def _words(self) -> Mapping[str, int] | None:
        """Word -> number, if the content is that of `of_words`; otherwise None."""
        words = self.tokens[len(SPECIAL) :]
        same = self.content["model"].get("type") == "WordLevel" and all(words)
        return dict(_numbers(self.content)) if same and self.content == _content(words) else None

    @functools.cached_property
    def _tokenizer(self) -> Any:
        """The tokenizer of the library."""
        check_library(self.where)
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_str(json.dumps(self.content))
        except Exception as error:  # the library raises no other type
            raise UserError(f"the library tokenizers cannot read {self.where}: {error}") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # '[SEP]' in a caption is text like any other
        return tokenizer


def load(path: Path) -> Vocabulary:
    """Reads a `tokenizer.json`.

    Args:
        path: the file, or a folder with the file `FILE`.

    Raises:
        UserError: there is no such file, or it is of another format.
    """
    path = path / FILE if path.is_dir() else path
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"cannot read the tokenizer {str(path)!r} ({reason}): give a tokenizer.json; mae-jax "
            "tokenizer trains one"
        ) from error
    return Vocabulary(content, str(path))


def of_words(words: Sequence[str]) -> Vocabulary:
    """A vocabulary of whole words in lower case, which needs no library.

    Args:
        words: different texts that `split` leaves whole. They get the numbers from 5 on.
    """
    return Vocabulary(_content(words))


def split(text: str) -> list[str]:
    """Words and groups of punctuation of a text, in lower case: what the library makes of it with
    the normalizers NFC and Lowercase, and the pre-tokenizer Whitespace.
    """
    text = "".join(character.lower() for character in unicodedata.normalize("NFC", text))
    groups = itertools.groupby(text, _kind)
    return ["".join(characters) for kind, characters in groups if kind]


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can encode a text: it holds no half of a surrogate pair, as JSON may."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_library(where: str) -> None:
    """Raises UserError if the library `tokenizers` is not installed."""
    if importlib.util.find_spec("tokenizers") is None:
        raise UserError(f"{where} needs the package tokenizers: pip install 'mae-jax[text]'")


def _kind(character: str) -> str:
    """'word', 'mark', or '' for a blank."""
    if character.isspace():
        return ""
    category = unicodedata.category(character)
    return "word" if category[0] in "LM" or category in ("Nd", "Nl", "Pc") else "mark"


def _numbers(content: Mapping[str, Any]) -> dict[str, int]:
    """Token -> number."""
    known = content["model"]["vocab"]
    if isinstance(known, list):  # of the model Unigram: (token, score)
        known = {token: number for number, (token, _) in enumerate(known)}
    added = {token["content"]: token["id"] for token in content.get("added_tokens") or ()}
    return {**known, **added}


def _content(words: Sequence[str]) -> dict[str, Any]:
    """A `tokenizer.json` of whole words."""
    numbers = {token: number for number, token in enumerate((*SPECIAL.values(), *words))}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [{"id": numbers[t], "content": t, **flags, "special": True} for t in SPECIAL.values()]
    sequence = lambda name, kind: {"Sequence": {"id": name, "type_id": kind}}
    special = lambda name: {"SpecialToken": {"id": name, "type_id": 0}}
    begin, end = SPECIAL["begin"], SPECIAL["end"]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special(begin), sequence("A", 0), special(end)],
            "pair": [sequence("A", 0), sequence("B", 1)],
            "special_tokens": {
                token: {"id": token, "ids": [numbers[token]], "tokens": [token]}
                for token in (begin, end)
            },
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": numbers, "unk_token": SPECIAL["unknown"]},
    }
