"""Inputs and predictions of a method on clips: a contact sheet of frames, and an animation."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from PIL import Image, ImageDraw

from mae_jax.figures.figure import Figure, FigureContext, save
from mae_jax.figures.reconstructions import drawn, nothing_to_draw
from mae_jax.types import UserError

SIDE = 0.9
"""Width of a frame of the contact sheet in inches."""
PIXELS = 128
"""Frames of the animation are enlarged to about this side."""
GAP = 4
"""White pixels between the frames of the animation."""
LINE, LETTERS = 12, 6
"""Pixels that a line of text is high, and a letter is wide."""


def make(count: int = 2, frames: int = 8, rate: float = 6.0) -> Figure:
    """Draws the pictures of the method (`Method.pictures`) of clips: `film.png`, some frames of
    each clip side by side, with a row for each kind of picture; and `film.gif`, all frames, with a
    column for each kind.

    Args:
        count: number of clips.
        frames: of each clip in `film.png`, evenly spread.
        rate: frames a second of `film.gif`.
    """
    if min(count, frames) < 1 or not 0 < rate <= 50:
        raise UserError(
            f"film: count={count} and frames={frames} must be at least 1, and rate={rate} in "
            "(0, 50]"
        )
    return Figure(
        name="film",
        files=("film.png", "film.gif"),
        draw=lambda context: draw(context, count, frames, rate),
        check=nothing_to_draw,
        sheet=lambda context, number, seed: drawn(
            contact_sheet(clips_of(context, number or count, seed), frames), SIDE
        ),
    )


def draw(context: FigureContext, count: int, frames: int, rate: float) -> list[Path]:
    """Writes both files."""
    pictures = clips_of(context, count, 0)
    sheet = save(drawn(contact_sheet(pictures, frames), SIDE), context.folder / "film.png")
    return [sheet, animation(pictures, context.folder / "film.gif", rate)]


def clips_of(context: FigureContext, count: int, seed: int) -> dict[str, np.ndarray]:
    """Kind of picture -> clips [B, T, H, W, C] uint8.

    Raises:
        UserError: the images are no clips.
    """
    pictures = context.pictures(count, seed)
    space = next(iter(pictures.values())).shape[1:-1]
    if len(space) != 3:
        raise UserError(
            f"the figure film is of clips [T, H, W, C], and these images are {list(space)}: draw "
            "reconstructions"
        )
    return pictures


def contact_sheet(pictures: Mapping[str, np.ndarray], frames: int) -> dict[str, np.ndarray]:
    """Label of each row -> its frames [n, H, W, C]: the kinds of pictures of the first clip, then
    those of the next.

    Args:
        pictures: kind -> [B, T, H, W, C] uint8.
        frames: in a row, at most.
    """
    first = next(iter(pictures.values()))
    length = first.shape[1]
    places = np.rint(np.linspace(0, length - 1, min(frames, length))).astype(int)
    several = len(first) > 1
    return {
        textwrap.fill(f"{number + 1}: {name}" if several else name, 24): clips[number, places]
        for number in range(len(first))
        for name, clips in pictures.items()
    }


def animation(pictures: Mapping[str, np.ndarray], path: Path, rate: float) -> Path:
    """Writes a GIF that repeats: a row for each clip, a column for each kind of picture, and their
    names above. Returns `path`.

    Args:
        pictures: kind -> [B, T, H, W, C] uint8; of other than three channels the first is shown.
        rate: frames a second.
    """
    columns = [
        _enlarged(clips if clips.shape[-1] == 3 else clips[..., :1]) for clips in pictures.values()
    ]
    columns = [_framed(np.broadcast_to(clips, (*clips.shape[:-1], 3))) for clips in columns]
    # [B, T, H, W, 3] of each kind to [T, B * H, kinds * W, 3]
    film = np.concatenate(columns, axis=3)
    film = film.swapaxes(0, 1).reshape(film.shape[1], -1, *film.shape[3:])
    heading = _heading([*pictures], columns[0].shape[3])
    frames = [Image.fromarray(np.concatenate([heading, frame])) for frame in film]
    if jax.process_index() == 0:
        options = dict(append_images=frames[1:], duration=round(1000 / rate), loop=0)
        frames[0].save(path, save_all=True, **options)
    return path


def _enlarged(clips: np.ndarray) -> np.ndarray:
    """Clips [B, T, H, W, C] with each pixel repeated, up to a width of about `PIXELS`."""
    factor = max(1, round(PIXELS / clips.shape[3]))
    return clips.repeat(factor, axis=2).repeat(factor, axis=3)


def _framed(clips: np.ndarray) -> np.ndarray:
    """Clips [B, T, H, W, 3] with white below and to the right."""
    return np.pad(clips, ((0, 0), (0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)


def _heading(names: list[str], width: int) -> np.ndarray:
    """[h, names * width, 3] uint8: the names in black on white, in columns of a width."""
    lines = [textwrap.wrap(name, max(4, width // LETTERS - 1)) for name in names]
    height = LINE * max(map(len, lines)) + 4
    picture = Image.new("RGB", (width * len(names), height), "white")
    for number, text in enumerate(lines):
        place = (number * width + 3, 1)
        ImageDraw.Draw(picture).multiline_text(place, "\n".join(text), fill="black", spacing=0)
    return np.asarray(picture)
