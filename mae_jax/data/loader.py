"""Loads examples: reads and transforms them, and replaces or reports unreadable ones."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mae_jax.data.fields import FIELDS, OWN, Field
from mae_jax.data.images import BadImage, pixels_of
from mae_jax.data.objects import OBJECTS, BoxMasks
from mae_jax.data.order import Rows
from mae_jax.data.random import hash_words
from mae_jax.data.sources import Source
from mae_jax.data.transforms import Transform, draw
from mae_jax.types import UserError

logger = logging.getLogger(__name__)

ON_ERROR = ("raise", "skip")
_TRIES = 10  # replacements to try for an unreadable example, before an error

Spec = Mapping[str, tuple[tuple[int, ...], np.dtype]]
"""Field -> shape and dtype of one example."""


def cores() -> int:
    """Number of CPU cores that this process may use: the default number of loader threads."""
    limited = hasattr(os, "sched_getaffinity")  # not on a Mac
    return len(os.sched_getaffinity(0)) if limited else os.cpu_count() or 1


class Loader:
    """Fills batches with the examples of one source.

    Args:
        source: examples.
        transforms: applied to each example.
        fields: fields of a batch besides 'image'. A source may lack 'label' and 'image'.
        on_error: for an unreadable image, 'raise', or 'skip' to replace it by another one, chosen
            by the example's seed.
        views: independently transformed views of each image: 'image', 'image2'.

    Raises:
        UserError: the source lacks one of the fields.
    """

    def __init__(
        self,
        source: Source,
        transforms: Sequence[Transform],
        *,
        fields: Sequence[str],
        on_error: str,
        views: int = 1,
    ):
        self.source, self.transforms = source, transforms
        self.fields, self.on_error = tuple(fields), on_error
        self.views = tuple(f"image{view + 1}" for view in range(1, views))
        self._reported: set[int] = set()
        self._spec: Spec | None = None

    def spec(self) -> Spec:
        """Shape and dtype of each field, from loading the first example."""
        if self._spec is None:
            first = Rows(np.zeros(1, np.int64), np.zeros(1, np.uint64))
            example = self._make(first)[0][0]
            known = sorted(example.keys() - {OWN, OBJECTS, *self.views})
            missing = {name for name in self.fields if not FIELDS.get(name, Field()).optional}
            missing -= {*known}
            if missing or not {"image", *self.fields} & {*known}:
                raise UserError(
                    f"the source has no {', '.join(sorted(missing or {'image'}))}: its fields are "
                    f"{', '.join(known)}; choose some with config.data.fields"
                )
            self._spec = {
                name: (np.shape(example[name]), self._dtype(name, example[name]))
                for name in ("image", *self.views, *self.fields)
                if name in example
            }
        return self._spec

    def _dtype(self, name: str, value: Any) -> np.dtype:
        field = FIELDS.get(name) or self.source.fields.get(name, Field())
        return np.dtype(field.dtype or np.asarray(value).dtype)

    def buffers(self, count: int) -> dict[str, np.ndarray]:
        """Empty arrays [count, ...] for every field, and 'valid' [count] bool."""
        arrays = {name: np.empty((count, *shape), dt) for name, (shape, dt) in self.spec().items()}
        return {**arrays, "valid": np.ones(count, bool)}

    def load(self, rows: Rows, out: Mapping[str, np.ndarray]) -> None:
        """Loads examples into arrays.

        Args:
            rows: indices and seeds of the examples. Copies of one are read and decoded once.
            out: field -> array [n, ...] to fill. 'valid' is False for a replacement of an
                unreadable example.

        Raises:
            UserError: an image is unreadable (unless skipped), or images differ in size.
        """
        examples, valid = self._make(rows)
        out["valid"][:] = valid
        for name, (shape, _) in self.spec().items():
            for row, example in enumerate(examples):
                if np.shape(example[name]) != shape:
                    self._fail_shape(name, np.shape(example[name]), shape)
                out[name][row] = example[name]

    def _make(self, rows: Rows) -> tuple[list[dict], np.ndarray]:
        """Examples, and [n] bool, False for replacements of unreadable ones."""
        params = self._draw(rows.seeds)
        once = rows.indices[:: rows.repeats]
        try:
            read = self._rows(once)
        except BadImage:  # read one by one below, to find out which
            read = [None] * len(once)
        examples, valid = [], np.ones(len(rows.indices), bool)
        for row, seed in enumerate(rows.seeds):
            number, copy = divmod(row, rows.repeats)
            index, example = int(once[number]), read[number]
            try:
                example = read[number] = self._read(index) if example is None else example
                examples.append(
                    self._transform(example, [[p[row] for p in view] for view in params])
                )
            except BadImage as error:
                examples.append(self._replace(index, seed, error))
                valid[row] = False
            if copy == rows.repeats - 1:
                read[number] = None  # frees the full image, which is larger than its crop
        return examples, valid

    def original(self, index: int, *, decoded: bool = False) -> dict | None:
        """An example as the source has it, not transformed; None if it is skipped.

        Args:
            decoded: whether to decode the image, too.

        Raises:
            UserError: it cannot be read, and such images are not skipped.
        """
        try:
            example = self._read(index)
            if not decoded:
                return example
            return {name: pixels_of(value) for name, value in example.items()}
        except BadImage as error:
            self._fail(index, error)
            return None

    def _read(self, index: int) -> dict:
        return self._rows(np.array([index]))[0]

    def _rows(self, indices: np.ndarray) -> list[dict]:
        """One dict of fields per example, from the source's rows per field."""
        fields = self.source.read(indices)
        own = {OWN: self.source.fields} if self.source.fields else {}
        rows = zip(*fields.values(), strict=True)
        return [dict(zip(fields, row, strict=True)) | own for row in rows]

    def _draw(self, seeds: np.ndarray) -> list[list[np.ndarray]]:
        """Parameters per view and transform; those of the first view do not depend on `views`."""
        more = [
            draw(self.transforms, hash_words(seeds, view)) for view in range(1, 1 + len(self.views))
        ]
        return [draw(self.transforms, seeds), *more]

    def _transform(self, example: dict, params: list[list[np.ndarray]]) -> dict:
        """The example with its views; fields that move with the image follow the first view."""
        if isinstance(masks := example.get("box_mask"), BoxMasks) and "box_mask" in self.fields:
            example = {**example, "box_mask": masks.drawn()}
        if self.views and "image" not in example:
            raise UserError("config.data.views=2 needs images, the source has none: set it to 1")
        first, *others = (self._view(example, numbers) for numbers in params)
        return first | {n: o["image"] for n, o in zip(self.views, others, strict=True)}

    def _view(self, example: dict, params: list[np.ndarray]) -> dict:
        for transform, numbers in zip(self.transforms, params, strict=True):
            example = transform.apply(example, numbers)
        return {name: pixels_of(value) for name, value in example.items()}

    def _replace(self, index: int, seed: np.uint64, error: BadImage) -> dict:
        """A replacement of an unreadable example, a function of the seed."""
        reason = self._fail(index, error)
        for attempt in range(_TRIES):
            seed = hash_words(seed, attempt)
            other = int(seed % np.uint64(self.source.num_examples))
            try:
                params = [[p[0] for p in view] for view in self._draw(seed[None])]
                return self._transform(self._read(other), params)
            except BadImage:
                continue
        raise UserError(f"{reason}; nor any of {_TRIES} replacements: repair the data") from error

    def _fail(self, index: int, error: BadImage) -> str:
        """Why an image cannot be read: raised, or reported once if such images are skipped."""
        reason = f"cannot read image {index}, {self.source.name(index)}: {error}"
        if self.on_error == "raise":
            raise UserError(
                f"{reason}; repair or remove it, or have such images skipped: "
                "--config.data.on_error=skip in training, --on-error skip elsewhere"
            ) from error
        if index not in self._reported:
            self._reported.add(index)
            logger.warning("skipped: %s", reason)
        return reason

    def _fail_shape(self, name: str, shape: tuple, expected: tuple) -> None:
        raise UserError(
            f"{name}s of different sizes in a batch, e.g. {expected} and {shape}: end the "
            "transforms with random_resized_crop(...) or resize(...)|center_crop(...), or for "
            "volumes with pad(...)|random_crop(...), and have the source pad boxes and texts to "
            "one length"
        )
