"""`mae-jax search`: what it prints and draws, against the cosines of embeddings that the method
computes from pixels and tokens; and one line for every mistake.
"""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import traverse_util
from PIL import Image

from mae_jax import search as searching
from mae_jax import weights
from mae_jax.data.vocabulary import FILE, Vocabulary, of_words
from mae_jax.types import UserError
from tests.helpers.commands import mistake, run
from tests.helpers.compiled import noise_like
from tests.helpers.tiny_args import make_tiny, tiny
from tests.weights import models

WORDS = of_words(["a", "red", "blue", "boot", "top"])
COUNT = 6
OUTPUTS = ("image_embedding", "text_embedding")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of noise of six colors, of the size that the models take, and its pixels."""
    folder = tmp_path_factory.mktemp("images") / "photos"
    folder.mkdir()
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 64, (COUNT, 16, 12, 3)) + rng.integers(0, 192, (COUNT, 1, 1, 3))
    pixels = pixels.astype(np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder, pixels


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The folder of a CLIP with random weights, and its method and parameters."""
    method = make_tiny("methods.clip")
    example = method.example((16, 12, 3))
    params, _ = noise_like(method.init, jax.random.key(0), example, scale=0.5)
    leaves = traverse_util.flatten_dict(jax.tree.map(np.asarray, params), sep="/")
    folder = tmp_path_factory.mktemp("runs") / "clip"
    args = dict(tiny("methods.clip").ARGS)
    weights.write_run(weights.Model(leaves, "clip", args, (16, 12, 3)), folder)
    WORDS.save(folder)
    return folder, method, params


@pytest.fixture(scope="module")
def mae(tmp_path_factory):
    """The folder of a masked autoencoder."""
    folder = tmp_path_factory.mktemp("runs") / "mae"
    weights.write_run(models.mae(depth=1, image=(16, 12, 3), patch=4), folder)
    return folder


def tokens(*rows):
    """The fields of texts of up to six tokens."""
    text, valid = np.zeros((len(rows), 6), np.int32), np.zeros((len(rows), 6), bool)
    for row, numbers in enumerate(rows):
        text[row, : len(numbers)], valid[row, : len(numbers)] = numbers, True
    return {"text": text, "text_valid": valid}


def table(output):
    """Query -> (name, cosine) of each line below it."""
    found = {}
    for block in f"\n{output}".split("\n\n")[1:-1]:
        label, *lines = block.splitlines()
        rows = [line.split() for line in lines]
        assert [row[0] for row in rows] == [str(n) for n in range(1, len(rows) + 1)]
        found[label] = [(name, float(cosine)) for _, cosine, name in rows]
    return found


def expected(images, query, count):
    """The nearest images by plain loops: a float64 cosine each."""
    cosines = [
        float(np.dot(x, query) / np.linalg.norm(x) / np.linalg.norm(query))
        for x in np.float64(images)
    ]
    order = sorted(range(len(cosines)), key=lambda i: -cosines[i])[:count]
    return [(f"{i}.png", pytest.approx(cosines[i], abs=6e-4)) for i in order]


def test_the_nearest_images_to_texts_and_to_an_image(clip, photos, tmp_path, capsys):
    """One text is longer than the run's six tokens, and one has an unknown word."""
    (folder, method, params), (images, pixels) = clip, photos
    texts = ["A red boot", "a blue top a blue top", "green boot"]
    (tmp_path / "texts.txt").write_text(f"\n{texts[1]}\n\n {texts[2]} \n")
    command = ["search", "--run", folder, "--images", images, "--top", 4]
    command += ["--query", texts[0], "--queries", tmp_path / "texts.txt"]
    assert run(*command, "--query-image", images / "3.png", "--out", tmp_path / "f.png") == 0
    said = capsys.readouterr().out
    numbers = tokens([2, 5, 6, 8, 3], [2, 5, 7, 9, 5, 3], [2, 1, 8, 3])
    predict = lambda batch: method.predict(params, {}, batch, outputs=OUTPUTS)
    rows = np.resize(np.arange(3), COUNT)
    found = jax.jit(predict)({"image": pixels, **{k: v[rows] for k, v in numbers.items()}})
    keys, queries = (np.asarray(found[name]) for name in OUTPUTS)
    shown = table(said)
    assert [*shown] == [*texts, str(images / "3.png")]
    for text, query in zip(texts, queries[:3], strict=True):
        assert shown[text] == expected(keys, query, 4), text
    assert shown[str(images / "3.png")] == expected(keys, keys[3], 4)
    assert shown[str(images / "3.png")][0] == ("3.png", 1.0)
    assert np.ptp(keys @ queries[0]) > 0.1, "the ranking means something"
    assert said.startswith("not in the run's vocabulary, and read as unknown tokens: 'green'\n")
    assert "cut 1 of 3 queries at 6 tokens; their end is kept" in said
    assert f"searched {COUNT} images\nwrote {tmp_path / 'f.png'}\n" in said
    with Image.open(tmp_path / "f.png") as sheet:
        drawn = np.asarray(sheet.convert("RGB"))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 500, "the noise of the images"


def test_any_encoder_finds_images_by_an_image(mae, photos, tmp_path, capsys):
    """And leaves out those that cannot be read."""
    images = tmp_path / "images"
    images.mkdir()
    for number, pixels in enumerate(photos[1]):
        Image.fromarray(pixels).save(images / f"{number}.png")
    (images / "1_broken.png").write_bytes(b"no image")
    command = ["search", "--run", mae, "--images", images, "--query-image", images / "2.png"]
    assert "cannot read image 2, 1_broken.png" in mistake(capsys, *command)
    assert run(*command, "--on-error", "skip", "--top", 50) == 0
    said = capsys.readouterr().out
    (rows,) = table(said).values()
    assert len(rows) == COUNT and rows[0] == ("2.png", 1.0)
    assert said.endswith(f"searched {COUNT} images, 1 left out\n")


def test_words_are_looked_up_as_the_tokenizer_reads_them():
    """A tokenizer that distinguishes lower case knows words in their own case."""
    library = pytest.importorskip("tokenizers")
    words = {"[UNK]": 0, "NASA": 1, "Paris": 2}
    made = library.Tokenizer(library.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = library.pre_tokenizers.Whitespace()
    cased = Vocabulary(json.loads(made.to_str()))
    method = SimpleNamespace(example=lambda shape: {"text": np.zeros((1, 4))})
    data = SimpleNamespace(example=lambda stage: {"image": np.zeros((1, 16, 12, 3))})
    queries = searching.read_texts(SimpleNamespace(method=method, data=data), cased, ["NASA Paris"])
    assert queries.read(np.array([0]))["text"].tolist() == [[1, 2, 0, 0]]
    assert searching.unknown_words(cased, "NASA Paris") == []
    assert searching.unknown_words(cased, "nasa in Paris, nasa") == ["nasa", "in", ","]
    with pytest.raises(UserError, match="no word of 'nasa paris' is in the vocabulary"):
        searching.read_texts(None, cased, ["nasa paris"])


def test_mistakes(clip, mae, photos, tmp_path, capsys):
    images, empty, binary = photos[0], tmp_path / "empty", tmp_path / "latin"
    empty.mkdir()
    binary.write_bytes(b"caf\xe9")
    (tmp_path / "blank").write_text("\n \n")
    search = lambda run_, *more, of=images: mistake(
        capsys, "search", "--run", run_, "--images", of, *more
    )
    folder = clip[0]
    line = search(mae, "--query", "a red boot")
    assert line.startswith("mae has no text tower") and "as clip does; --query-image" in line
    assert "no word of 'zebra' is in the vocabulary" in search(folder, "--query", "zebra")
    assert "the query 'caf\\udce9' is not UTF-8" in search(folder, "--query", "caf\udce9")
    assert "argument --query: it is empty" in search(folder, "--query", " ")
    assert search(folder).startswith("nothing to search for: give --query TEXT or --query-image")
    assert "--top 0: must be at least 1" in search(folder, "--query", "boot", "--top", "0")
    assert "folder: no files in" in search(folder, "--query", "boot", of=empty)
    assert "is not UTF-8" in search(folder, "--queries", binary)
    assert "is empty: write a text" in search(folder, "--queries", tmp_path / "blank")
    assert "nowhere.png" in search(folder, "--query-image", tmp_path / "nowhere.png")
    assert "latin cannot be read: no image" in search(folder, "--query-image", binary)
    line = search(folder, "--query", "boot", "--top", "101", "--out", tmp_path / "f.png")
    assert line == "--out draws up to 100 queries, and --top 100: give fewer"
    assert "f.txt" in search(folder, "--query", "boot", "--out", tmp_path / "f.txt")
    (folder / FILE).rename(tmp_path / FILE)
    line = search(folder, "--query", "boot")
    assert line.endswith(
        "clip has no vocabulary.json: copy the tokenizer.json of the run's texts there"
    )
    of_words([f"w{number}" for number in range(20)]).save(folder)
    assert "has 25 tokens, and config.method.args.vocabulary=16" in search(folder, "--query", "w1")
    (tmp_path / FILE).rename(folder / FILE)
