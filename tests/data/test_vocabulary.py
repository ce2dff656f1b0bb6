"""Vocabularies and texts in tokens, against the library `tokenizers` and plain Python."""

import json

import numpy as np
import pytest

from mae_jax.data import tokenizers, vocabulary
from mae_jax.data.tokens import Tokens
from mae_jax.data.vocabulary import SPECIAL, Vocabulary, is_unicode, of_words, split
from mae_jax.types import UserError

TEXTS = [
    "A small red sneaker, at the top!",
    "",
    "the café's   CAT",
    "[SEP] is text; so is [MASK]",
    "cafe\u0301 two\tthe (top)",
    "a_b हिन्दी Ωσς 3.5",
]
WORDS = of_words(sorted({word for text in TEXTS[:3] for word in split(text)}))


@pytest.fixture(scope="module")
def library():
    return pytest.importorskip("tokenizers")


def test_words_are_those_of_the_library(library):
    """The same file read by the library, and by this package without it, gives the same numbers."""
    theirs = library.Tokenizer.from_str(json.dumps(WORDS.content))
    theirs.encode_special_tokens = True
    assert [*WORDS.encode(TEXTS)] == [theirs.encode(text).ids for text in TEXTS]
    assert WORDS.ends == [3] and len(WORDS) == theirs.get_vocab_size()
    unknown = theirs.token_to_id("[UNK]")
    assert any(unknown in numbers for numbers in WORDS.encode(TEXTS[3:]))
    for numbers in WORDS.encode(TEXTS):
        assert WORDS.decode(numbers) == theirs.decode(
            [n for n in numbers if n not in (2, 3)], skip_special_tokens=False
        )


def test_words_without_the_library(monkeypatch):
    monkeypatch.setattr(vocabulary.importlib.util, "find_spec", lambda name: None)
    words = "a small red sneaker , at the top !".split()
    (numbers,) = WORDS.encode(TEXTS[:1])
    assert [WORDS.tokens[n] for n in numbers] == ["[CLS]", *words, "[SEP]"]
    assert WORDS.decode([*numbers, 0, 0]) == " ".join(words)
    with pytest.raises(UserError, match="kind 'bpe' needs the package tokenizers: pip install 'm"):
        tokenizers.train(TEXTS, "bpe", 300)
    other = Vocabulary({**WORDS.content, "normalizer": None}, "x.json")
    with pytest.raises(UserError, match="x.json needs the package tokenizers"):
        next(other.encode(["a"]))


def test_most_frequent_words():
    trained = tokenizers.train(["b a c", "b d", "d b"], "words", 8)
    assert [*trained.tokens] == [*SPECIAL.values(), "b", "d", "a"]
    assert dict(trained.special) == {role: n for n, role in enumerate(SPECIAL)}


@pytest.mark.parametrize(("kind", "size"), [("wordpiece", 90), ("bpe", 280)])
def test_pieces_of_words(library, kind, size, tmp_path):
    trained = tokenizers.train(iter(TEXTS), kind, size)
    again = tokenizers.train(iter(TEXTS), kind, size)
    assert trained.fingerprint == again.fingerprint, "the same texts, the same tokenizer"
    assert trained.tokens[:5] == [*SPECIAL.values()] and len(SPECIAL) < len(trained) <= size
    trained.save(tmp_path)
    loaded = vocabulary.load(tmp_path)
    assert loaded.fingerprint == trained.fingerprint
    theirs = library.Tokenizer.from_file(str(tmp_path / vocabulary.FILE))
    theirs.encode_special_tokens = True
    encoded = [*loaded.encode(TEXTS)]
    assert encoded == [theirs.encode(text).ids for text in TEXTS]
    assert all(numbers[0] == 2 and numbers[-1] == 3 for numbers in encoded) and loaded.ends == [3]
    assert loaded.decode(encoded[0]).replace(" ", "") == "asmallredsneaker,atthetop!"


def test_tokenizers_of_others(library):
    """Their own ends, names of special tokens, and neither their padding nor their truncation."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    theirs = Tokenizer(models.WordLevel({"!": 0, "<unk>": 1, "a": 2}, unk_token="<unk>"))
    theirs.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    plain = Vocabulary(json.loads(theirs.to_str()))
    assert plain.ends == [] and [*plain.encode(["a b !"])] == [[2, 1, 0]]
    theirs.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    theirs.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        special_tokens=[("<|startoftext|>", 3), ("<|endoftext|>", 4)],
    )
    bare = Vocabulary(json.loads(theirs.to_str()))
    theirs.enable_padding(length=9)
    theirs.enable_truncation(3)
    clip = Vocabulary(json.loads(theirs.to_str()))
    assert clip.hash == bare.hash != plain.hash
    assert clip.special == {"unknown": 1, "begin": 3, "end": 4} and len(clip) == 5
    assert [*clip.encode(["a a a a"])] == [[3, 2, 2, 2, 2, 4]] and clip.ends == [4]


def test_unigrams_have_a_list_of_pieces(library):
    from tokenizers import Tokenizer, models

    theirs = Tokenizer(models.Unigram([("<unk>", 0.0), ("ab", -1.0), ("a", -2.0)], 0, False))
    assert [*Vocabulary(json.loads(theirs.to_str())).encode(["aba"])] == [theirs.encode("aba").ids]


def test_texts_in_batches():
    """Padding, cut texts that keep their end, missing and empty ones, against plain Python."""
    texts = ["the red top", "", " \n", "the " * 10_000, "red sneaker zzz"]
    tokens = Tokens(WORDS, iter(texts), length=6, where="here")
    found = tokens.read(np.array([4, 3, 0, 1, 2]))
    number = {token: place for place, token in enumerate(WORDS.tokens)}
    rows = [
        ["[CLS]", "red", "sneaker", "[UNK]", "[SEP]"],
        ["[CLS]", "the", "the", "the", "the", "[SEP]"],
        ["[CLS]", "the", "red", "top", "[SEP]"],
        [],
        [],
    ]
    expected = [[number[token] for token in row] + [0] * (6 - len(row)) for row in rows]
    np.testing.assert_array_equal(found["text"], expected)
    np.testing.assert_array_equal(
        found["text_valid"], [[i < len(r) for i in range(6)] for r in rows]
    )
    assert (found["text"].dtype, found["text_valid"].dtype) == (np.int32, np.bool_)
    assert tokens.notes() == [
        f"3 captions of a vocabulary of {len(WORDS)}, 5 to 6 tokens, mean 5.3; 6.25% of the tokens "
        "are unknown",
        "2 of 5 captions missing or empty: no token of such a text is valid",
        "cut 1 of 5 captions at 6 tokens; their end is kept",
    ]
    assert len(tokens) == 5


def test_the_digest_of_texts():
    """Depends on texts, vocabulary and length."""
    make = lambda texts, words=WORDS, length=6: Tokens(words, texts, length=length, where="").digest
    digest = make(["the top"])
    assert digest == make(["The  top"])
    others = [["top the"], ["the top", ""]]
    assert digest not in (*map(make, others), make(["the top"], length=7))
    assert digest != make(["the top"], of_words([*WORDS.tokens[5:], "zzz"]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: tokenizers.train(["a"], "sentencepiece", 9),
            "kind 'sentencepiece' is unknown: ch",
        ),
        (
            lambda: tokenizers.train(["a"], "words", 5),
            "size 5: a vocabulary of kind 'words' has at",
        ),
        (lambda: tokenizers.train(["a"], "bpe", 200), "'bpe' has at least 261 tokens"),
        (lambda: tokenizers.train([" "], "words", 9), "there are no words in the captions"),
        (lambda: Tokens(WORDS, [], length=2, where="x"), "x: length 2: give a number of tokens, 3"),
        (lambda: Vocabulary({"model": {}}, "x.json"), "x.json is no tokenizer.json of the library"),
        (lambda: Vocabulary([], "x.json"), "x.json is no tokenizer.json of the library tokenizers"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(UserError) as error:
        call()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_more_characters_than_tokens(library):
    with pytest.raises(UserError, match="size 9: the characters alone need 15 tokens: raise it"):
        tokenizers.train(["abc def"], "wordpiece", 9)


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the tokenizer .*none.json' \(No such file"):
        vocabulary.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read the tokenizer .*bad.json' \(Expecting"):
        vocabulary.load(tmp_path / "bad.json")
    content = {**WORDS.content, "pre_tokenizer": {"type": "Nonsense"}}
    pytest.importorskip("tokenizers")
    with pytest.raises(UserError, match="the library tokenizers cannot read x.json: "):
        next(Vocabulary(content, "x.json").encode(["a"]))


def test_the_unknown_parts_of_a_text(library):
    """Those whose numbers are that of the unknown token, for own tokenizers and the library's."""
    assert WORDS.unknown("A BIG, red") == ["big"]
    made = tokenizers.train(TEXTS, "wordpiece", 200)
    text = "a small zebra 猫"
    known = made.encode(text.split(" "))
    missing = [word for word, n in zip(text.split(" "), known) if made.special["unknown"] in n]
    assert made.unknown(text) == missing == ["zebra", "猫"]
    assert tokenizers.train(TEXTS, "bpe", 300).unknown(text) == []


def test_texts_that_cannot_be_written_leave_no_file(tmp_path):
    with pytest.raises(UnicodeEncodeError):
        of_words(["\ud83d"]).save(tmp_path / "tok.json")
    assert not [*tmp_path.iterdir()]
    assert is_unicode("é 猫") and not is_unicode("\ud83d")
