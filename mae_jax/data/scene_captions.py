"""Captions of the scenes of one garment, from what each scene is: its class, tint, size, place, the
side that a shoe points to, and the words of its photograph. A caption is a function of the seed,
the split and the number of the scene: templates, synonyms, and attributes left out at random.
"""

import colorsys
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mae_jax.data.scene_parts import GARMENT_SCALE, TINT, between
from mae_jax.data.vocabulary import Vocabulary, of_words, split

Draw = Mapping[str, float]
"""Name -> uniform number in [0, 1)."""

NOUNS: Sequence[Sequence[str]] = (
    ("t-shirt", "tee", "top"),
    ("pair of trousers", "pair of pants", "trouser"),
    ("pullover", "sweater", "jumper"),
    ("dress", "gown", "frock"),
    ("coat", "jacket", "overcoat"),
    ("sandal", "open shoe", "strappy shoe"),
    ("shirt", "blouse", "button-up"),
    ("sneaker", "trainer", "running shoe"),
    ("bag", "handbag", "purse"),
    ("ankle boot", "boot", "bootie"),
)
"""Words for each class of garments; no two classes share one."""
POINTED = (5, 7, 9)
"""Classes of shoes. Their toes point left in Fashion-MNIST."""
SIZES = (("tiny",), ("small", "little"), ("medium-sized", "mid-sized"), ("large", "big"), ("huge",))
"""Words for five ranges of the size, of equal width."""
HUES = (
    ("red", "reddish"),
    ("orange", "tan"),
    ("yellow", "olive"),
    ("lime", "yellowish green"),
    ("green", "emerald"),
    ("teal", "turquoise"),
    ("blue", "azure"),
    ("violet", "purple"),
    ("magenta", "pink"),
)
"""Words for ranges of the hue, whose upper ends are HUE_ENDS in degrees."""
HUE_ENDS = (15, 45, 70, 100, 150, 195, 245, 285, 345)
GRAYS = (("gray", "dull"), ("white", "pale"))
"""Words for tints of low saturation, dark and bright."""
ROWS = ("at the top", "", "at the bottom")
COLUMNS = ("on the left", "", "on the right")
CENTER = ("in the middle", "in the center")
PHOTOGRAPHS: Mapping[str, Sequence[str]] = {
    "Picture_0B_by_freespace": ("a fig on a red plate", "a red plate", "a cut fruit"),
    "Picture_1A_by_freespace": ("paint brushes", "bright colors", "a brush"),
    "Wine_by_Jakkub_Mede": ("a room with a drum", "a wooden table", "a dark room"),
    "aitzgorri_by_Aitzol_Berasategi": ("a mountain", "autumn trees", "a hill in autumn"),
    "friends_by_Aitzol_Berasategi": ("two dogs", "dogs at a window", "a window"),
    "life_by_Aitzol_Berasategi": ("a stream", "a wood", "a forest with a stream"),
    "seeding_by_Clements_Engelhardt": ("dandelions", "a meadow", "flowers"),
    "brick": ("a wall", "bricks", "a brick wall"),
    "chelsea": ("a cat", "the face of a cat", "fur"),
    "grass": ("grass", "a lawn", "gray grass"),
    "hubble_deep_field": ("galaxies", "the night sky", "stars"),
    "rocket": ("a rocket", "a launch pad", "a rocket at night"),
    "picosdeeuropa_by_Aitzol_Berasategi": ("rocks", "a path to rocks", "a rocky mountain"),
    "sunset_by_Aitzol_Berasategi": ("a sunset", "hills at sunset", "an evening sky"),
    "coffee": ("a cup", "coffee", "a cup of coffee"),
    "gravel": ("gravel", "small stones", "pebbles"),
}
"""Words for each photograph, of both splits."""
OPENINGS = ("", "a photo of", "a picture of", "an image of", "this is", "here is", "we see")
BEHIND = ("in front of", "against", "before")
TEMPLATES = (
    "{opening} {garment} {side} {place} {background}",
    "{opening} {garment} {side} {background} {place}",
    "{background} , {garment} {side} {place}",
)
KEPT: Mapping[str, float] = {
    "size": 0.6,
    "tint": 0.8,
    "side": 0.6,
    "place": 0.6,
    "background": 0.7,
}
"""Attribute -> share of the captions that name it, if the scene shows it."""
DRAWS = ("template", "opening", "noun", "behind", *KEPT, *(f"{name} word" for name in KEPT))
"""The uniform numbers of a caption, in the order drawn. Append new ones, or all captions change."""

_VOWELS = "aeiou"
_GRAY = 0.2  # saturation below which a tint has no hue
_BRIGHT = 0.75  # value from which it is white
_APART = 0.07  # distance from the center, over the side of the scene, that is named


class Scene(NamedTuple):
    """What a scene shows."""

    label: int
    """Class of the garment."""
    photograph: str
    """Name of the photograph."""
    draw: Draw
    """The numbers that the scene was drawn with, by name; see `sources/fashion_scenes.py`."""

    @property
    def size(self) -> int:
        """Number in SIZES."""
        return int(self.draw["garment_scale"] * len(SIZES))

    @property
    def tint(self) -> Sequence[str]:
        """Words for the color."""
        color = [between(TINT, self.draw[name]) for name in ("red", "green", "blue")]
        hue, saturation, value = colorsys.rgb_to_hsv(*color)
        if saturation < _GRAY:
            return GRAYS[value >= _BRIGHT]
        place = next((i for i, end in enumerate(HUE_ENDS) if 360 * hue < end), 0)
        return HUES[place]

    @property
    def place(self) -> tuple[int, int]:
        """(row, column) of the garment in a grid of 3 by 3."""
        free = 1 - between(GARMENT_SCALE, self.draw["garment_scale"])
        offsets = ((self.draw[name] - 0.5) * free for name in ("garment_y", "garment_x"))
        return tuple(1 + (offset > _APART) - (offset < -_APART) for offset in offsets)

    @property
    def side(self) -> str:
        """'left' or 'right', where a shoe points to; '' for other garments."""
        if self.label not in POINTED:
            return ""
        return "right" if self.draw["garment_flip"] < 0.5 else "left"


def caption(scene: Scene, draw: Draw) -> str:
    """A caption of a scene.

    Args:
        scene: what to describe.
        draw: of the names DRAWS.
    """
    pick = lambda words, name: words[int(draw[name] * len(words))]
    kept = {name: draw[name] < share for name, share in KEPT.items()}
    row, column = scene.place
    place = f"{ROWS[row]} {COLUMNS[column]}".strip() or pick(CENTER, "place word")
    behind = f"{pick(BEHIND, 'behind')} {pick(PHOTOGRAPHS[scene.photograph], 'background word')}"
    garment = [
        pick(SIZES[scene.size], "size word") if kept["size"] else "",
        pick(scene.tint, "tint word") if kept["tint"] else "",
        pick(NOUNS[scene.label], "noun"),
    ]
    template = pick(TEMPLATES if kept["background"] else TEMPLATES[:1], "template")
    return _tidy(
        template.format(
            opening=pick(OPENINGS, "opening"),
            garment=_with_article(" ".join(filter(None, garment))),
            side=f"facing {scene.side}" if scene.side and kept["side"] else "",
            place=place if kept["place"] else "",
            background=behind if kept["background"] else "",
        )
    )


def vocabulary() -> Vocabulary:
    """The words of all captions, of both splits."""
    words = dict.fromkeys(word for text in _phrases() for word in split(text))
    return of_words(sorted(words))


def _phrases() -> Iterator[str]:
    """Texts with every word of a caption."""
    # '/' is in the name of a class, which prompts may hold.
    yield from (*OPENINGS, *BEHIND, *ROWS, *COLUMNS, *CENTER, "a an , / facing left right")
    yield from itertools.chain(*NOUNS, *SIZES, *HUES, *GRAYS, *PHOTOGRAPHS.values())


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in _VOWELS else 'a'} {noun}"


def _tidy(text: str) -> str:
    return re.sub(" +", " ", text).replace(" ,", ",").strip()
