"""`mae-jax search`: the images of a folder that are nearest to a text, or to another image, by the
cosine of their embeddings (CLIP, Radford et al. 2021, arXiv 2103.00020).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mae_jax.data import alpha
from mae_jax.data.decoding import MAX_PIXELS, BadImage
from mae_jax.data.reading import Reading
from mae_jax.data.resizing import thumbnail
from mae_jax.data.tokens import Tokens
from mae_jax.data.transforms import transformed
from mae_jax.data.vocabulary import FILE, Vocabulary, is_unicode, load
from mae_jax.evals.retrieval import OUTPUTS
from mae_jax.evals.zero_shot import unit
from mae_jax.figures.figure import save
from mae_jax.figures.reconstructions import flat
from mae_jax.figures.retrieved import Row, Tile, sheet
from mae_jax.predictions.tables import predict_readable
from mae_jax.run import Run
from mae_jax.spec import parse
from mae_jax.types import TrainState, UserError

IMAGE, TEXT = OUTPUTS
"""Outputs whose products compare an image with a text."""
SHOWN = 26
"""Characters of a name that are written on a sheet."""
SIDE = 256
"""Longest side of an image on a sheet in pixels."""


class Query(NamedTuple):
    """What is searched for."""

    label: str
    vector: np.ndarray
    """[E] float32, to compare with those of the images."""
    image: np.ndarray | None = None
    """[h, w, C] uint8, a thumbnail of a query that is an image."""


class Found(NamedTuple):
    """The nearest images to a query, the nearest first."""

    query: Query
    indices: np.ndarray
    """[K] int, in the source of the images."""
    names: Sequence[str]
    """K names."""
    cosines: np.ndarray
    """[K] float32."""


def output_of(run: Run) -> str:
    """The output that represents the images: the one that texts are compared with, or, of methods
    without it, the features.
    """
    output = IMAGE if IMAGE in run.method.offers() else "features"
    run.method.check_output(run.name, output)
    return output


def read_vocabulary(run: Run, workdir: Path) -> Vocabulary:
    """The vocabulary of the texts that a run has learned.

    Raises:
        UserError: its method does not compare images with texts, or the workdir has no vocabulary.
    """
    if not {*OUTPUTS} <= {*run.method.offers()}:
        raise UserError(
            f"{run.name} has no text tower, so no text is near to its images: search with a run of "
            "a method that has one, as clip does; --query-image searches by an image"
        )
    if not (workdir / FILE).is_file():
        raise UserError(
            f"{workdir} has no {FILE}: copy the tokenizer.json of the run's texts there"
        )
    vocabulary, size = load(workdir), run.method.vocabulary_size()
    if len(vocabulary) > size:
        raise UserError(
            f"{vocabulary.where} has {len(vocabulary)} tokens, and config.method.args.vocabulary="
            f"{size}: it is not that of the run's texts"
        )
    return vocabulary


def read_texts(run: Run, vocabulary: Vocabulary, texts: Sequence[str]) -> Tokens:
    """Texts as tokens, as the run reads them.

    Raises:
        UserError: a text without any word of the vocabulary, or one that is not Unicode.
    """
    special = {*vocabulary.special.values()}
    for text in texts:
        if not is_unicode(text):
            raise UserError(f"the query {text!r} is not UTF-8: type it again")
    for text, numbers in zip(texts, vocabulary.encode(texts), strict=True):
        if special.issuperset(numbers):
            raise UserError(
                f"no word of {text!r} is in the vocabulary of the run, which has "
                f"{len(vocabulary)} tokens: use words of its captions, see {vocabulary.where}"
            )
    length = run.method.example(shape_of(run))["text"].shape[1]
    return Tokens(vocabulary, texts, length=length, where="search")


def unknown_words(vocabulary: Vocabulary, text: str) -> list[str]:
    """The words of a text, or parts of them, that become the unknown token, each once."""
    return [*dict.fromkeys(vocabulary.unknown(text))]


def text_queries(run: Run, state: TrainState, texts: Sequence[str], tokens: Tokens) -> list[Query]:
    """The queries of texts, whose tokens are those of `read_texts`."""
    vectors = embed(run, state, TEXT, tokens.read(np.arange(len(tokens))))
    return [Query(text, vector) for text, vector in zip(texts, vectors, strict=True)]


def image_queries(
    run: Run, state: TrainState, files: Mapping[str, bytes], output: str
) -> list[Query]:
    """The queries of image files.

    Args:
        files: path -> content.
        output: of the method, to compare.

    Raises:
        UserError: one is no image, or of another size after the run's transforms.
    """
    pairs = [read_image(run, path, data) for path, data in files.items()]
    originals, images = zip(*pairs, strict=True)
    vectors = embed(run, state, output, {"image": np.stack(images)})
    return [
        Query(path, vector, small(original))
        for path, vector, original in zip(files, vectors, originals, strict=True)
    ]


def read_image(run: Run, path: str, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """An image file decoded as the images that are searched, [h, w, C] uint8, and transformed as
    they are, [H, W, C] uint8; see `image_queries`.
    """
    shape, (call, *_) = shape_of(run), parse(run.config.data.train)
    if len(shape) != 3:
        raise UserError(f"{path}: queries are images of 2 dimensions, and the run's {list(shape)}")
    options = dict(window=None, background=alpha.WHITE, max_pixels=MAX_PIXELS)
    if call.name == "folder":
        options |= {key: call.kwargs[key] for key in options if key in call.kwargs}
    try:
        encoded = Reading("--query-image", channels=shape[-1], **options)(data)
        pixels, image = encoded.pixels(), transformed(encoded, run.data.transforms["eval"])
    except BadImage as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if image.shape != shape:
        raise UserError(
            f"{path} is {list(image.shape)} after the run's eval_transform, and the images of the "
            f"folder are {list(shape)}: resize it"
        )
    return pixels, image


def shape_of(run: Run) -> tuple[int, ...]:
    """[*space, C] of the images that are searched, after the transforms."""
    return run.data.example("eval")["image"].shape[1:]


def embed(run: Run, state: TrainState, output: str, fields: Mapping[str, np.ndarray]) -> np.ndarray:
    """An output [N, E] of fields [N, ...] of examples, computed in batches of one size."""
    predict, count = run.predictor(state, (output,)), len(next(iter(fields.values())))
    devices = run.mesh.size
    size = min(run.data.eval_batch_size, -(-count // devices) * devices)
    parts = []
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)  # repeats the last one
        found = predict({name: values[rows] for name, values in fields.items()})
        parts.append(np.asarray(found[output]))
    return np.concatenate(parts)[:count]


def nearest(
    run: Run, state: TrainState, queries: Sequence[Query], output: str, top: int
) -> tuple[list[Found], int]:
    """The nearest readable images of the split 'train' to each query.

    Args:
        queries: of `text_queries` or `image_queries`.
        output: of the method, which represents the images.
        top: number of images for each query.

    Returns:
        The images for each query, and the number of images that were compared.
    """
    arrays, read = predict_readable(run, state, (output,))
    vectors = unit(np.stack([query.vector for query in queries]))  # [Q, E]
    found, source = [], run.data.source("train")
    for query, cosines in zip(queries, vectors @ unit(arrays[output]).T, strict=True):  # [N]
        order = np.argsort(-cosines, kind="stable")[:top]
        names = [source.name(int(index)) for index in read[order]]
        found.append(Found(query, read[order], names, cosines[order]))
    return found, len(read)


def draw(run: Run, found: Sequence[Found], out: Path) -> Path:
    """Draws the found images into a PNG file. Returns its path."""
    out.parent.mkdir(parents=True, exist_ok=True)
    return save(sheet(rows_of(run, found), side=1.4), out)


def rows_of(run: Run, found: Sequence[Found]) -> list[Row]:
    """A row of pictures for each query: the images as they are in the folder, and a query that is
    an image before them.
    """
    size = max(len(one.indices) for one in found)
    batches = run.data.originals("train", [one.indices.tolist() for one in found], size)
    rows = []
    for one, originals in zip(found, batches, strict=True):
        titles = [
            f"{cosine:.3f}\n{name if len(name) <= SHOWN else '…' + name[1 - SHOWN :]}"
            for name, cosine in zip(one.names, one.cosines, strict=True)
        ]
        images = [example["image"] for example in originals[: len(titles)]]
        tiles = [Tile(small(image), title) for title, image in zip(titles, images, strict=True)]
        if one.query.image is None:
            rows.append(Row(one.query.label, tiles))
        else:
            rows.append(Row(Path(one.query.label).name, [Tile(one.query.image, "query"), *tiles]))
    return rows


def small(image: np.ndarray) -> np.ndarray:
    """An image as a thumbnail, of a volume the middle slice; signals are unchanged."""
    image = flat(image[None])[0]
    return thumbnail(image, SIDE) if image.ndim == 3 else image
