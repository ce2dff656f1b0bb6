"""Retrieval of images by captions of the test set: for some captions, the nearest images by the
cosine of their embeddings (CLIP, arXiv 2103.00020), with the images of the caption marked.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from mae_jax.evals.retrieval import OUTPUTS, matches, ranks, reduce, sides, with_hashes
from mae_jax.figures.figure import Figure, FigureContext, save
from mae_jax.figures.reconstructions import flat, raster, show
from mae_jax.types import Batch, Method, UserError

SIDE = 1.1
"""Width of an image in inches."""
LABEL = 2.3
"""Width of the labels of rows in inches."""
PIXELS = 96
"""Images are scaled down to this side."""
GREEN = "#0a7d33"


class Tile(NamedTuple):
    """An image of a sheet."""

    image: np.ndarray
    """[H, W, C] uint8, or a signal [L, C]."""
    title: str
    """Shown above it, in one or two short lines."""
    marked: bool = False
    """Whether it has a green frame."""


class Row(NamedTuple):
    """A row of a sheet."""

    label: str
    tiles: Sequence[Tile]


def make(captions: int = 6, top: int = 6, limit: int = 1000) -> Figure:
    """Draws `retrieved.png`: a row for each caption with its own image and the nearest images of
    the test set, or of the training set if there is none. Images that have the caption are framed.
    Equal images are shown once.

    Args:
        captions: number of different captions, spread over the set.
        top: number of the nearest images.
        limit: number of images to search, spread over the set.
    """
    if min(captions, top, limit) < 1:
        raise UserError(
            f"retrieved: captions={captions}, top={top} and limit={limit} must be at least 1"
        )
    name, options = "retrieved.png", dict(captions=captions, top=top, limit=limit)
    return Figure(
        name="retrieved",
        files=(name,),
        draw=lambda context: [save(sheet(read(context, **options)), context.folder / name)],
        check=nothing_to_draw,
        log=lambda context: (raster(sheet(read(context, **options))), CAPTION),
    )


CAPTION = (
    "A row for each caption: its own image, then the nearest images. Green: it has the caption."
)


def nothing_to_draw(method: Method) -> str | None:
    """Why a method retrieves nothing; None: it does."""
    fits = {*OUTPUTS} <= {*method.offers()}
    return None if fits else "the method does not compare images with texts, as clip does"


def read(context: FigureContext, *, captions: int, top: int, limit: int) -> list[Row]:
    """The rows of the figure; see `make`.

    Raises:
        UserError: no image has a text, or embeddings are not finite.
    """
    rows = embedded(context, limit)
    images, texts = sides(rows)
    place = ranks(texts, images).wrong + 1
    firsts = np.sort(np.unique(texts.numbers, return_index=True)[1])
    chosen = firsts[np.unique(np.linspace(0, len(firsts) - 1, captions).round().astype(int))]
    words = context.data.source(context.split).vocabulary
    found = []
    for query in chosen:
        cosines = images.embeddings @ texts.embeddings[query]  # [N]
        right = matches(texts.numbers[[query]], texts, images)[0]
        mine = cosines[images.pairs[query]]
        own = Tile(rows["image"][query], f"its own, {mine:.2f}", True)
        nearest = [
            Tile(rows["image"][images.rows[k]], f"{number}, {cosines[k]:.2f}", bool(right[k]))
            for number, k in enumerate(np.argsort(-cosines, kind="stable")[:top], start=1)
        ]
        numbers = rows["text"][query][rows["text"][query] > 0] - 1
        text = words.decode(numbers) if words else f"tokens {' '.join(map(str, numbers))}"
        found.append(Row(f"{text}\n(rank {place[query]} of {len(cosines)})", [own, *nearest]))
    return found


def embedded(context: FigureContext, limit: int) -> dict[str, np.ndarray]:
    """The results of `evals.retrieval.reduce` and small pictures of the images that have a text,
    [P, ...] each.
    """
    embed, draw = context.predict(OUTPUTS, reduce), context.predict((), pictures)
    parts: dict[str, list[np.ndarray]] = {}
    for batch in context.data.eval(context.split, limit=limit):
        found = jax.device_get({**embed(with_hashes(batch)), **draw(batch)})
        for name, values in found.items():
            parts.setdefault(name, []).append(values[found["valid"]])
    rows = {name: np.concatenate(values) for name, values in parts.items()}
    if not len(rows["text"]):
        raise UserError(
            f"retrieved: no image of config.data.{context.split} has a text: leave it out of "
            "config.evals.figures"
        )
    return rows


def pictures(outputs: Mapping[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
    """The images of a batch, [B, H, W, C] uint8 with sides of at most PIXELS, or signals."""
    images = flat(batch["image"])
    if images.ndim == 4 and max(images.shape[1:3]) > PIXELS:
        factor = PIXELS / max(images.shape[1:3])
        height, width = (max(1, round(side * factor)) for side in images.shape[1:3])
        shape = (len(images), height, width, images.shape[3])
        small = jax.image.resize(images.astype(jnp.float32), shape, "linear")
        images = jnp.clip(small.round(), 0, 255).astype(jnp.uint8)
    return {"image": images}


def sheet(rows: Sequence[Row], side: float = SIDE) -> Canvas:
    """Rows of images, each with a label at the left.

    Args:
        side: width of an image in inches.
    """
    columns = max(len(row.tiles) for row in rows)
    figure = Canvas((LABEL + side * columns, (side + 0.3) * len(rows)), dpi=150)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for axis in line[len(row.tiles) :]:
            axis.set_axis_off()
        for axis, tile in zip(line, row.tiles):
            draw_tile(axis, tile)
        label = "\n".join(textwrap.fill(part, 32) for part in row.label.split("\n"))
        options = dict(rotation=0, ha="right", va="center", fontsize=8, parse_math=False)
        line[0].set_ylabel(label, labelpad=6, **options)
    top = 1 - 0.28 / figure.get_figheight()
    figure.subplots_adjust(left=LABEL / figure.get_figwidth(), right=0.995, top=top, bottom=0.01)
    figure.subplots_adjust(wspace=0.06, hspace=0.3 / side)
    return figure


def draw_tile(axis: Axes, tile: Tile) -> None:
    """Draws an image with its title, and a frame if it is marked."""
    show(axis, tile.image)
    color = GREEN if tile.marked else "black"
    axis.set_title(tile.title, fontsize=6.5, pad=2, color=color, parse_math=False)
    if tile.marked:
        axis.spines[:].set(visible=True, color=GREEN, linewidth=2)
