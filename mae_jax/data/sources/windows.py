"""All windows of the volumes or images of another source: a grid of crops, for evaluations."""

import hashlib
from collections.abc import Sequence

import numpy as np

from mae_jax.data.fields import OWN, move, space_of
from mae_jax.data.geometry import Window
from mae_jax.data.images import BadImage
from mae_jax.data.names import printable
from mae_jax.data.sources import Source, Wrapper
from mae_jax.data.transforms import size_of
from mae_jax.spec import build
from mae_jax.types import UserError


class Windows(Wrapper):
    """Windows of the examples of a source, see `make`. Memory holds the shape of each example.

    Args:
        source: the source.
        size: of the windows along each axis.
        overlap: of neighbors, a share of `size`.

    Raises:
        UserError: images have another number of axes.
    """

    def __init__(self, source: Source, size: tuple[int, ...], overlap: float):
        super().__init__(source)
        self.size, self.overlap = size, overlap
        self.spaces, self.damaged = [], []
        for index in range(source.num_examples):
            try:
                self.spaces.append(self._space(index))
            except BadImage as error:  # one example, which raises the error again
                self.spaces.append(None)
                self.damaged.append(f"{printable(source.name(index))}: {error}")
        counts = [1 if s is None else np.prod(list(map(len, self._starts(s)))) for s in self.spaces]
        self._ends = np.cumsum(counts)
        self.num_examples = int(self._ends[-1])
        text = f"{source.digest} {size} {overlap}"
        self.digest = hashlib.sha256(text.encode()).hexdigest()[:16]

    def _space(self, index: int) -> tuple[int, ...]:
        space = space_of(self.source.read(np.array([index]))["image"][0])
        if len(space) != len(self.size):
            raise UserError(
                f"windows: size {self.size} has {len(self.size)} numbers, and "
                f"{printable(self.source.name(index))} has {len(space)} axes besides the channels"
            )
        return space

    def _starts(self, space: Sequence[int]) -> list[list[int]]:
        return [starts(n, size, self.overlap) for n, size in zip(space, self.size, strict=True)]

    def window(self, index: int) -> tuple[int, tuple[slice, ...]]:
        """Number of the example in the wrapped source, and the box of a window in it.

        Raises:
            BadImage: the example is damaged.
        """
        example = int(np.searchsorted(self._ends, index, side="right"))
        space = self.spaces[example]
        if space is None:
            self.source.read(np.array([example]))  # raises the error
            raise BadImage("it could not be read at the start")
        axes = self._starts(space)
        number = int(index) - (int(self._ends[example - 1]) if example else 0)
        corner = np.unravel_index(number, list(map(len, axes)))
        begins = [axis[at] for axis, at in zip(axes, corner)]
        ends = [min(a + n, side) for a, n, side in zip(begins, self.size, space)]
        return example, tuple(map(slice, begins, ends))

    def read(self, indices: np.ndarray) -> dict[str, list]:
        """The rows of the source, cut to the windows."""
        rows = [self._row(index) for index in indices]
        return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}

    def _row(self, index: int) -> dict:
        example, box = self.window(index)
        fields = self.source.read(np.array([example]))
        row = {name: values[0] for name, values in fields.items()} | {OWN: self.source.fields}
        begins, size = [one.start for one in box], tuple(one.stop - one.start for one in box)
        moved = move(row, Window(box=(*begins, *size), size=size))
        return {name: value for name, value in moved.items() if name != OWN}

    def geometry(self, index: int) -> None:
        """None: a window is a part of a volume, see `window`."""

    def name(self, index: int) -> str:
        """'scan.nii.gz[0:64, 32:96, 0:64]'."""
        try:
            example, box = self.window(index)
        except BadImage:
            return self.source.name(int(np.searchsorted(self._ends, index, side="right")))
        return f"{self.source.name(example)}[{', '.join(f'{b.start}:{b.stop}' for b in box)}]"

    def _examples(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.spaces)), np.diff(self._ends, prepend=0))

    def labels(self) -> np.ndarray | None:
        """[N] int32, those of the examples."""
        labels = self.source.labels()
        return None if labels is None else labels[self._examples()]

    def column(self, field: str) -> np.ndarray | None:
        """[N, ...], of the examples."""
        values = self.source.column(field)
        return None if values is None else values[self._examples()]

    def weights(self) -> np.ndarray | None:
        """[N] float32, of the examples."""
        weights = self.source.weights()
        return None if weights is None else weights[self._examples()]

    def group(self, index: int) -> str:
        """The group of the example, whose windows stay together."""
        return self.source.group(int(np.searchsorted(self._ends, index, side="right")))

    def groups(self) -> np.ndarray:
        """[N] int32, groups of the source, or else its examples."""
        groups, examples = self.source.groups(), self._examples()
        return (examples if groups is None else groups[examples]).astype(np.int32)


def starts(side: int, size: int, overlap: float) -> list[int]:
    """Starts of the windows along an axis: from the first to the last voxel, evenly spaced, and no
    farther apart than (1 - overlap) * size.

    Args:
        side: of the image.
        size: of the windows; one window of the whole side if that is smaller.
        overlap: in [0, 1).
    """
    margin, step = max(0, side - size), max(1, int(size * (1 - overlap)))
    count = -(-margin // step) + 1
    return [round(k * margin / max(1, count - 1)) for k in range(count)]


def make(source: str, size: int | Sequence[int], *, overlap: float = 0.0) -> Windows:
    """All windows of the images of a source, as examples of their own: in rows, evenly spaced from
    one end of each axis to the other. Windows of one image form a group.

    The shapes of all images are read at the start.

    Args:
        source: spec string, e.g. "volume('scans', window=(-175, 250))".
        size: of a window along each axis; smaller images are one window, which `pad` makes larger.
        overlap: share of a window, in [0, 1), that neighbors have in common, at least.

    Raises:
        UserError: the source cannot be opened, or an argument is invalid.
    """
    if not 0 <= overlap < 1:
        raise UserError(f"windows: overlap {overlap} should be a share in [0, 1), e.g. 0.5")
    return Windows(build(source, "data.sources", Source), size_of(size, rank=None), overlap)
