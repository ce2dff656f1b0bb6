"""Captions of the user's images, from each layout of files, and their way into batches."""

import io
import json
import re
import shutil
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mae_jax.checks import check_vocabulary as check_vocabulary_size
from mae_jax.data import make_data, tokenizers, vocabulary
from mae_jax.data.identity import check_vocabulary
from mae_jax.data.sources import captioned, fashion_scenes, uncaptioned
from mae_jax.data.subset import hold_out
from mae_jax.restore import load_run
from mae_jax.sharing.facts import read_facts
from mae_jax.train import train
from mae_jax.types import UserError
from mae_jax.workdir import claim
from tests.helpers import tiny
from tests.helpers.commands import mistake, run
from tests.helpers.runs import ROOT

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

NAMES = ["a/0.png", "a/1.png", "b/2.png", "b/3.png"]
CAPTIONS = {"a/0.png": "a red cat", "a/1.png": "two dogs, asleep", "b/3.png": " "}
SECOND = {"a/0.png": ["one cat", "a cat!"]}


def png(number):
    """The bytes of an image of one color."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "png")
    return file.getvalue()


def write_tar(path):
    """Images, captions and JSON as webdataset has them."""
    with tarfile.open(path, "w") as tar:
        for number, name in enumerate(NAMES):
            row = json.dumps({"caption": CAPTIONS.get(name), "size": number})
            parts = {"png": png(number), "json": row.encode()}
            if name in CAPTIONS:
                parts["txt"] = CAPTIONS[name].encode()
            for ending, data in parts.items():
                info = tarfile.TarInfo(f"{number}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The same images and captions in all layouts, and a tokenizer."""
    root = tmp_path_factory.mktemp("captions")
    for number, name in enumerate(NAMES):
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    for name, text in CAPTIONS.items():
        (root / "images" / name).with_suffix(".txt").write_text(text.replace(" ", "\n"))
    rows = [{"file": name, "caption": CAPTIONS.get(name)} for name in NAMES]
    lines = [f'./{row["file"]},"{row["caption"] or ""}"' for row in rows]
    (root / "captions.csv").write_text("\n".join(["file,caption", *lines, "c/9.png,none"]))
    (root / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parquet.write_table(pa.Table.from_pylist(rows), root / "captions.parquet")
    listed = [{**row, "caption": [row["caption"], *SECOND.get(row["file"], [])]} for row in rows]
    (root / "lists.json").write_text("\n".join(map(json.dumps, listed)))
    content = {
        "images": [{"id": 9 - i, "file_name": name} for i, name in enumerate(NAMES)],
        "annotations": [
            {"id": i, "image_id": 9 - NAMES.index(name), "caption": text}
            for i, (name, text) in enumerate(
                [
                    ("a/0.png", None),  # a caption that is missing
                    *CAPTIONS.items(),
                    *((n, text) for n, several in SECOND.items() for text in several),
                ]
            )
        ],
    }
    (root / "coco.json").write_text(json.dumps(content))
    write_tar(root / "shard.tar")
    tokenizers.train([*CAPTIONS.values(), "one !"], "words", 99).save(root / "tok.json")
    return root


def layouts(root):
    """Layout -> spec of the source."""
    images, tok = f"folder({str(root / 'images')!r})", f"tokenizer={str(root / 'tok.json')!r}"
    at = lambda name: repr(str(root / name))
    table = f"table({at('captions.csv')}, root={at('images')}, captions=caption, missing=skip)"
    beside = {"beside": "images", "csv": "captions.csv", "jsonl": "captions.jsonl"}
    beside |= {"parquet": "captions.parquet", "lists": "lists.json", "coco": "coco.json"}
    own = {"table": table, "tar": f"tar({at('shard.tar')}, captions=txt)"}
    own |= {"json": f"tar({at('shard.tar')}, captions='json.caption')"}
    own |= {"hf": f"hf({at('hub.parquet')}, captions=text)"}
    return {
        **{
            n: f"captioned({images!r}, captions={at(p)}, {tok}, length=6)"
            for n, p in beside.items()
        },
        **{n: f"captioned({spec!r}, {tok}, length=6)" for n, spec in own.items()},
    }


def opened(root, layout, **more):
    """The source of a layout."""
    spec = layouts(root)[layout]
    extra = "".join(f", {key}={value!r}" for key, value in more.items())
    return make_data(
        train=f"{spec[:-1]}{extra})",
        fields=("text", "text_valid"),
        batch_size=2,
        train_transform="",
        eval_transform="",
        workers=1,
    )


LAYOUTS = ["beside", "csv", "jsonl", "parquet", "lists", "coco", "table", "tar", "json", "hf"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_captions_are_the_same_from_each_layout(root, layout):
    if layout == "hf":
        rows = [{"image": png(i), "text": CAPTIONS.get(name)} for i, name in enumerate(NAMES)]
        parquet.write_table(pa.Table.from_pylist(rows), root / "hub.parquet")
    data = opened(root, layout)
    source = data.source("train")
    batches = list(data.eval("train"))
    text = np.concatenate([batch["text"] for batch in batches])
    valid = np.concatenate([batch["text_valid"] for batch in batches])
    reds = [int(image[0, 0, 0]) for batch in batches for image in batch["image"]]
    assert (text.dtype, valid.dtype, reds) == (np.int32, np.bool_, [0, 1, 2, 3])
    shown = [" ".join(source.vocabulary.tokens[n] for n in row[ok]) for row, ok in zip(text, valid)]
    assert shown == ["[CLS] a red cat [SEP]", "[CLS] two dogs , asleep [SEP]", "", ""]
    assert not text[~valid].any()
    notes = "\n".join(data.notes())
    assert "2 of 4 captions missing or empty: no token of such a text is valid" in notes
    assert "2 captions of a vocabulary of" in notes
    assert ("captions.csv has captions of 1 image that" in notes) == (layout == "csv")
    several = "1 of 4 images have several captions, of which the first is used (several=first)"
    assert (several in notes) == (layout in ("coco", "lists"))
    assert data.fingerprints()["vocabulary"] == source.vocabulary.fingerprint
    if source.labels() is not None:
        assert source.labels().tolist() == [0, 0, 1, 1] and source.class_names == ("a", "b")


def test_an_example_of_each_caption(root):
    """Images are read again, named by their captions, and stay on one side of a split."""
    source = opened(root, "coco", several="each").source("train")
    assert source.num_examples == 6
    names = [source.name(i) for i in range(6)]
    assert names == ["a/0.png", "a/0.png#1", "a/0.png#2", *NAMES[1:]]
    assert source.labels().tolist() == [0, 0, 0, 0, 1, 1]
    rows = source.read(np.array([2, 0, 3]))
    texts = [source.vocabulary.decode(row[ok]) for row, ok in zip(rows["text"], rows["text_valid"])]
    assert texts == ["a cat !", "a red cat", "two dogs , asleep"]
    assert [image.pixels()[0, 0, 0] for image in rows["image"]] == [0, 0, 1]
    assert source.groups().tolist() == [0, 0, 0, 1, 2, 3]
    for part in hold_out(source, 0.35):
        assert len({*part.indices.tolist()} & {0, 1, 2}) in (0, 3)
    assert source.group(2) == source.group(0) == "a/0.png"
    assert opened(root, "coco").source("train").groups() is None


def test_identity(root):
    """Other captions, another length or another tokenizer are other data; another layout is too,
    but has the same numbers.
    """
    source = lambda layout, **more: opened(root, layout, **more).source("train")
    first = source("csv").digest
    assert first == source("csv").digest
    assert first == source("jsonl").digest == source("beside").digest
    assert first != source("coco", several="each").digest
    longer = layouts(root)["csv"].replace("length=6", "length=7")
    more = dict(batch_size=2, train_transform="", eval_transform="", fields=("text",))
    assert make_data(train=longer, **more).source("train").digest != first
    tokenizers.train([*CAPTIONS.values(), "zzz"], "words", 99).save(root / "other.json")
    other = layouts(root)["csv"].replace("tok.json", "other.json")
    with pytest.raises(
        UserError, match=r"the texts of config.data.test have the vocabulary \d+ \w"
    ):
        make_data(train=layouts(root)["csv"], test=other, **more)
    data = make_data(train=layouts(root)["csv"], test=other, **{**more, "fields": ("label",)})
    assert data.vocabulary.fingerprint != data.source("test").vocabulary.fingerprint
    recorded = data.fingerprints()
    check_vocabulary("here", recorded, data.source("train"))
    with pytest.raises(UserError, match="the texts of here have the vocabulary"):
        check_vocabulary("here", recorded, data.source("test"))
    check_vocabulary("here", recorded, fashion_scenes.make(num_examples=1, size=16))


@pytest.mark.thorough
def test_a_run_keeps_its_vocabulary(root, tmp_path):
    """In its workdir. With another tokenizer it neither resumes nor is it evaluated."""
    config = tiny.get_config()
    shutil.copy(root / "tok.json", tmp_path / "tok.json")
    spec = layouts(root)["csv"].replace(str(root / "tok.json"), str(tmp_path / "tok.json"))
    config.data.update(train=spec, test="", batch_size=4, fields=("text", "text_valid"))
    config.data.train_transform = config.data.eval_transform = "resize((8, 12))"
    config.evals.run = ""
    train(config, tmp_path / "run")
    run_, _ = load_run(tmp_path / "run")
    assert read_facts(tmp_path / "run").counts.keys() == {"train"}, "for the model card"
    recorded = vocabulary.load(tmp_path / "run")
    assert recorded.fingerprint == run_.data.vocabulary.fingerprint
    tokenizers.train(["a red zebra"], "words", 99).save(tmp_path / "tok.json")
    with pytest.raises(UserError, match="fingerprints.vocabulary: '.* there, '8 .* now"):
        train(config, tmp_path / "run")
    with pytest.raises(UserError, match="config.data.train have the vocabulary 8 .* and those of"):
        load_run(tmp_path / "run")
    assert vocabulary.load(tmp_path / "run").fingerprint == recorded.fingerprint


def test_another_vocabulary_is_another_run(tmp_path):
    """In one line, which holds both sizes and hashes."""
    config = tiny.get_config()
    claim(tmp_path, config, {"train": "4 ab", "vocabulary": "9 ab"})
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    claim(tmp_path, config, {"train": "4 ab", "vocabulary": "9 ab"})
    with pytest.raises(UserError, match=r"vocabulary: '9 ab' there, '8 cd' now\): use another"):
        claim(tmp_path, config, {"train": "4 ab", "vocabulary": "8 cd"})


def test_a_method_for_fewer_tokens_is_refused(root):
    data = opened(root, "csv")
    method = lambda size: SimpleNamespace(vocabulary_size=lambda: size)
    size = len(data.vocabulary)
    for enough in (0, size, size + 1):
        check_vocabulary_size(method(enough), data)
    with pytest.raises(
        UserError, match=f"a vocabulary of {size} tokens, and .*=9: set it to {size}"
    ):
        check_vocabulary_size(method(9), data)


@pytest.mark.parametrize("kind", ["words", "wordpiece", "bpe"])
def test_the_command(root, kind, tmp_path, capsys):
    if kind != "words":
        pytest.importorskip("tokenizers")
    spec = layouts(root)["lists"].partition(", tokenizer")[0] + ")"
    out = tmp_path / "new" / "tok.json"
    options = ("--images", spec, "--out", out, "--kind", kind, "--size", 300)
    assert run("tokenizer", *options) == 0
    made = vocabulary.load(out)
    assert f"wrote {out}: {len(made)} tokens of kind {kind}" in capsys.readouterr().out
    direct = tokenizers.train(
        [text for name in NAMES for text in [CAPTIONS.get(name), *SECOND.get(name, [])] if text],
        kind,
        300,
    )
    assert made.fingerprint == direct.fingerprint
    assert "already exists: remove it" in mistake(capsys, "tokenizer", *options)


def test_the_document_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "text.md").read_text("utf-8")
    (block,) = re.findall(r"^```python\n(from .*?)^```", text, re.M | re.S)
    exec(block, {})
    size = re.search(r"a vocabulary of (\d+) tokens", text.replace("\n", " "))[1]
    assert int(size) == len(vocabulary.load(tmp_path / "words.json"))


def test_images_without_captions(root):
    """Their texts are empty, labels and names those of the images; existing texts stay."""
    images, tokenizer = str(root / "images"), root / "tok.json"
    source = uncaptioned.make(images, tokenizer=str(tokenizer), length=6)
    assert source.vocabulary.fingerprint == vocabulary.load(tokenizer).fingerprint
    assert source.labels().tolist() == [0, 0, 1, 1] and source.name(2) == "b/2.png"
    rows = source.read(np.array([3, 1]))
    assert rows["text"].shape == rows["text_valid"].shape == (2, 6) and len(rows["image"]) == 2
    assert not rows["text"].any() and not rows["text_valid"].any()
    assert uncaptioned.make(images).vocabulary is None
    scenes = "fashion_scenes(num_examples=2, size=16, captions=True)"
    assert uncaptioned.make(scenes, tokenizer="none.json").read(np.array([0]))["text_valid"].any()
    with pytest.raises(UserError, match="uncaptioned: length 2: give a number of tokens"):
        uncaptioned.make(images, length=2)
    with pytest.raises(UserError, match="cannot read the tokenizer 'none.json'"):
        uncaptioned.make(images, tokenizer="none.json")


def test_mistakes(root, tmp_path, capsys):
    images, tok = str(root / "images"), f"tokenizer={str(root / 'tok.json')!r}"
    (tmp_path / "other.csv").write_text("file,caption\nx.png,a\n")
    (tmp_path / "coco.json").write_text('{"images": [{"id": 1}], "annotations": []}')
    (tmp_path / "empty.csv").write_text('file,caption\na/0.png,\nx.png," "\n')
    (tmp_path / "header.csv").write_text("file,caption\n")
    for folder in ("texts", "blanks/a"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "blanks" / "a" / "0.txt").write_text(" \n")
    (tmp_path / "own.csv").write_text(f"file,caption\n{root / 'images' / NAMES[0]}, \n")
    half, twice = {"id": 1, "file_name": "a/0.png"}, {"id": 1, "file_name": "a/1.png"}
    for name, listed, text in (("half", [half], "cat \ud83d"), ("twice", [half, twice], "a cat")):
        rows = {"images": listed, "annotations": [{"image_id": 1, "caption": text}]}
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    scenes = "fashion_scenes(num_examples=1, size=16, captions=True)"
    at = lambda name: f"captions={str(tmp_path / name)!r}"
    of = lambda more: f"captioned({images!r}, {tok}, {more})"
    table = f"captions={str(root / 'captions.csv')!r}"
    cases = {
        f"captioned({images!r}, {tok})": "captioned: the source has no column of captions: give",
        of(at("other.csv")): "names none of the images: it has 'x.png', and the first image is 'a",
        of(at("texts")): "no image has a text file in",
        of(at("none.csv")): "captioned: there is no file",
        of(at("empty.csv")): "empty.csv are missing or empty; name another column or file of",
        of(at("header.csv")): "captioned: no image has a caption: all in ",
        of(at("blanks")): "captioned: no image has a caption: all in ",
        f"captioned(\"table('{tmp_path / 'own.csv'}', captions=caption)\", {tok})": (
            "captioned: no image has a caption: all are missing or empty"
        ),
        of(at("half.json")): "half of a character, a lone surrogate: 'cat \\ud83d': remove it",
        of(at("twice.json")): "has two images of the id 1, 'a/0.png' and 'a/1.png', and which",
        of(at("coco.json")): "should have the lists images (id, file_name) and annotations",
        of(f"caption=x, {table}"): "has no column 'x'",
        of("several=all"): "captioned: several 'all' is unknown: choose",
        f"captioned({scenes!r}, {tok})": "has texts already: leave captioned(...) out",
        f"captioned({images!r}, tokenizer='none.json', {table})": "cannot read the tokenizer",
        f"captioned({images!r})": "missing a required argument: 'tokenizer'",
        "captioned('nothing', tokenizer='x')": "captioned=nothing: there is no folder of that",
    }
    for spec, message in cases.items():
        with pytest.raises(UserError) as error:
            make_data(train=spec, batch_size=1, train_transform="", eval_transform="")
        assert message in str(error.value) and "\n" not in str(error.value), str(error.value)
    options = ("--out", tmp_path / "t.json", "--images")
    found = mistake(capsys, "tokenizer", *options, f"folder({images!r})")
    assert "the source has no column of captions" in found
    for name in ("empty.csv", "blanks", "half.json"):
        spec = f"captioned({images!r}, {at(name)})"
        reason = "a lone surrogate" if name == "half.json" else "no image has a caption"
        for kind in ("words", "bpe"):
            assert reason in mistake(capsys, "tokenizer", *options, spec, "--kind", kind)
            assert not [*tmp_path.glob("t.json*")], "nor a temporary file"
    assert "there is no 'caption_'" in mistake(
        capsys, "tokenizer", *options, "captioned('a', caption_=1)"
    )
    assert not (tmp_path / "t.json").exists()
    assert captioned.SEVERAL == ("first", "each")
