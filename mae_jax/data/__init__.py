"""The input pipeline, from sources to batches: that of step s is a pure function of (seed, s).
TensorFlow is imported only for the 'tf' pipeline.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mae_jax.data import arrays, classes, identity, originals
from mae_jax.data import subset as subsets
from mae_jax.data.columns import columns
from mae_jax.data.loader import Loader, cores
from mae_jax.data.named import check_damaged, open_sources
from mae_jax.data.options import batches_of, check_options, repeats_note
from mae_jax.data.order import Rows, Stream, evaluation_rows, limited, training_rows
from mae_jax.data.random import hash_words, permute
from mae_jax.data.sampling import make_stream
from mae_jax.data.sources import Source
from mae_jax.data.transforms import Transform, make_transforms
from mae_jax.data.vocabulary import Vocabulary
from mae_jax.types import UserError


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Data:
    """Batches of one training set and one test set, for one process; see `make_data`."""

    sources: dict[str, Source]
    batch_size: int
    eval_batch_size: int
    transforms: Mapping[str, list[Transform]]
    """Stage, 'train' or 'eval' -> transforms of each example."""
    fields: Sequence[str]
    pipeline: str
    workers: int
    on_error: str
    views: int
    repeats: int = 1
    seed: int
    process_index: int
    process_count: int
    stream: Stream | None = None
    empty_classes: Sequence[str] = ()
    """Classes of the training set without an image."""
    _loaders: dict[tuple[str, str, str], Loader] = dataclasses.field(default_factory=dict)
    _skipped: Counter = dataclasses.field(default_factory=Counter)

    @property
    def num_examples(self) -> int:
        """Size of the training set."""
        return self.sources["train"].num_examples

    @property
    def skipped(self) -> int:
        """Number of unreadable images that the batches of `train` have replaced so far."""
        return self._skipped["train"]

    def fingerprints(self) -> dict[str, str]:
        """Of the sources, see `identity`: a run refuses to resume if one has changed, but for
        'reading', whose changes it reports.
        """
        return identity.fingerprints(self.sources)

    @property
    def vocabulary(self) -> Vocabulary | None:
        """Of the field 'text' of all splits; None: the training set has none."""
        return self.sources["train"].vocabulary

    def notes(self) -> list[str]:
        """Lines about the examples to report at the start of a run."""
        lines = repeats_note(self.repeats)
        for split in sorted(self.sources.keys() - {"val"}, reverse=True):  # val is part of train
            source = self.sources[split]
            counts = [classes.counted(source)] if "label" in self.fields else []
            lines += [f"config.data.{split}: {line}" for line in (*counts, *source.notes) if line]
        return lines

    def train(self, start_step: int) -> Iterator[dict[str, np.ndarray]]:
        """This process's rows of the endless stream of training batches from `start_step` on."""
        rows_at = functools.partial(
            training_rows,
            seed=self.seed,
            num_examples=self.num_examples,
            batch_size=self.batch_size,
            repeats=self.repeats,
            process_index=self.process_index,
            process_count=self.process_count,
            stream=self.stream,
        )
        loader, steps = self._loader("train", "train"), itertools.count(start_step)
        stream = batches_of(self.pipeline)(loader, rows_at, steps, self.workers)
        with contextlib.closing(stream) as batches:
            for batch in batches:
                self._skipped["train"] += int((~batch["valid"]).sum())
                yield {name: rows for name, rows in batch.items() if name != "valid"}

    def eval(
        self, split: str, limit: int | None = None, then: str = "", shuffled: bool = False
    ) -> Iterator[dict[str, np.ndarray]]:
        """One pass over a split with the evaluation transforms.

        The last batch is padded to the batch size. 'valid' [b] bool is False for padding and for
        rows that replace an unreadable image.

        Args:
            split: 'train', 'test' or 'val'.
            limit: use only this many examples, spread over the split by a fixed permutation.
            then: spec string of transforms to append, e.g. 'corruption(fog, severity=3)'.
            shuffled: whether to read all examples by that permutation, too.
        """
        source = self.source(split)
        if limit is not None and limit < 1:
            raise UserError(f"limit {limit}: at least one example is needed")
        count, steps = self._eval_count(split, limit), range(self.eval_steps(split, limit))
        positions_at = functools.partial(
            evaluation_rows,
            num_examples=count,
            batch_size=self.eval_batch_size,
            process_index=self.process_index,
            process_count=self.process_count,
        )

        def rows_at(step: int) -> Rows:
            positions, valid = positions_at(step)
            read = positions[: max(1, valid.sum())]  # padding need not be read
            indices = limited(read, count, source.num_examples, shuffled)
            return Rows(indices, hash_words(indices))

        loaded = arrays.batches(
            self._loader(split, "eval", then), rows_at, iter(steps), self.workers
        )
        for step, batch in zip(steps, loaded, strict=True):
            valid = positions_at(step)[1]
            if not valid.all():
                padded = np.minimum(np.arange(len(valid)), len(batch["valid"]) - 1)  # the last row
                batch = {name: rows[padded] for name, rows in batch.items()}
                batch["valid"] &= valid
            yield batch

    def sizes(self, split: str) -> np.ndarray:
        """[N, rank] sizes of a split's images, not transformed, but the channels; zeros for one
        that is skipped.
        """
        return originals.sizes(self._loader(split, "eval"), self._eval_count(split), self.workers)

    def originals(
        self, split: str, batches: Sequence[Sequence[int]], batch_size: int, decoded: bool = True
    ) -> Iterator[list[originals.Original]]:
        """This process' rows of batches of examples that are not transformed, filled up by None.

        Args:
            batches: of indices of the split, at most `batch_size` each, the same in all processes.
            batch_size: of the global batch.
            decoded: False: images stay as the source has them, and volumes are only opened.
        """
        size = batch_size // self.process_count
        mine = slice(self.process_index * size, (self.process_index + 1) * size)
        rows = [[*batch, *[None] * (batch_size - len(batch))][mine] for batch in batches]
        return originals.read(self._loader(split, "eval"), rows, self.workers, decoded)

    def eval_steps(self, split: str, limit: int | None = None) -> int:
        """Number of batches of `eval`."""
        return -(-self._eval_count(split, limit) // self.eval_batch_size)

    def _eval_count(self, split: str, limit: int | None = None) -> int:
        count = self.source(split).num_examples
        return min(limit or count, count)

    def least_bytes(self, stage: str) -> int:
        """Lower bound on the bytes of one channel of an image after the transforms; 0: unknown.

        Args:
            stage: whose transforms, 'train' or 'eval'.
        """
        return max((transform.pixels for transform in self.transforms[stage]), default=0)

    def example(self, stage: str, split: str = "train") -> dict[str, np.ndarray]:
        """A batch of one example, which shows the fields, shapes and dtypes of batches.

        Args:
            stage: whose transforms, 'train' or 'eval'.
        """
        loader = self._loader(split, stage)
        batch = loader.buffers(1)
        loader.load(Rows(np.zeros(1, np.int64), np.zeros(1, np.uint64)), batch)
        return {name: rows for name, rows in batch.items() if stage != "train" or name != "valid"}

    def sample(self, count: int, fields: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """`count` training examples, by the seed; with `fields` only labels, see `columns`."""
        if fields:
            return columns(self.sources["train"], count, fields, self.seed)
        loader, size = self._loader("train", "train"), self.num_examples
        batch = loader.buffers(count)
        indices = permute(np.arange(count) % size, size, self.seed)
        loader.load(Rows(indices, hash_words(np.arange(count, dtype=np.uint64), self.seed)), batch)
        return {name: rows for name, rows in batch.items() if name != "valid"}

    def source(self, split: str) -> Source:
        """The source of a split, or a UserError if there is none."""
        if split not in self.sources:
            why = "held_out is 0" if split == "val" else f"{split} names no source"
            raise UserError(f"there is no {split!r} split: config.data.{why}")
        return self.sources[split]

    def _loader(self, split: str, stage: str, then: str = "") -> Loader:
        if (split, stage, then) not in self._loaders:
            self._loaders[split, stage, then] = Loader(
                self.source(split),
                [*self.transforms[stage], *make_transforms(then)],
                fields=self.fields,
                on_error=self.on_error,
                views=self.views if stage == "train" else 1,
            )
        return self._loaders[split, stage, then]


def make_data(
    *,
    train: str,
    test: str = "",
    subset: str = "",
    held_out: float = 0.0,
    sampling: str = "",
    batch_size: int,
    eval_batch_size: int = 0,
    train_transform: str,
    eval_transform: str,
    fields: Sequence[str] = ("label",),
    pipeline: str = "arrays",
    workers: int = 0,
    on_error: str = "raise",
    views: int = 1,
    repeats: int = 1,
    seed: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Data:
    """Opens the sources of a training set and, optionally, a test set.

    Args:
        train, test: spec strings of sources, e.g. "folder('photos')" or
            'fashion_scenes(split=train)', or paths of folders of images.
        subset: spec string of a labeled subset of the training set, e.g. 'share(0.01)'; '': all.
        held_out: share of the training set that becomes the split 'val'; groups are not split.
        sampling: '' (each example once an epoch), 'balanced' (each class equally often) or
            'weighted' (in proportion to the source's weights).
        batch_size: global batch size in training.
        eval_batch_size: global batch size in evaluation; 0: as in training.
        train_transform, eval_transform: spec strings of transforms.
        fields: fields of the sources that batches hold, besides 'image'. A source may lack 'label',
            and it may lack 'image' if it has another field.
        pipeline: 'arrays' (threads) or 'tf' (tf.data) for training; the batches are the same.
            Evaluation always uses 'arrays'.
        workers: threads; 0: one per core, at most 64.
        on_error: for an unreadable image, 'raise' or 'skip': training replaces it by another one,
            evaluation leaves it out.
        views: independently augmented views of each training image: 1, or 2 ('image' and 'image2')
            for methods that compare two.
        repeats: rows of a training batch that are transformed copies of one image, decoded once.
        seed: seed of order and augmentation.
        process_index, process_count: which rows of each global batch this process loads.

    Raises:
        UserError: unknown names, missing folders, a batch size `process_count` does not divide;
            images known to be damaged, unless `on_error` is 'skip'.
    """
    rates = (batch_size, process_count, views, repeats, workers)
    check_options(pipeline, on_error, *rates, sampling, fields)
    texts = {"train": train_transform, "eval": eval_transform}
    transforms = {stage: make_transforms(text) for stage, text in texts.items()}
    subsets.check(subset, held_out)
    sources = open_sources({"train": train, "test": test})
    check_damaged({} if on_error == "skip" else sources)
    empty_classes = sources["train"].empty_classes
    sources = subsets.parts(sources, subset, held_out, skip=on_error == "skip")
    if "test" in sources:
        identity.check_test(sources, fields)
        sources["test"] = classes.like(sources["test"], sources["train"], fields)
    return Data(
        sources=sources,
        batch_size=batch_size,
        eval_batch_size=eval_batch_size or batch_size,
        transforms=transforms,
        fields=tuple(fields),
        pipeline=pipeline,
        workers=workers or min(64, cores()),
        on_error=on_error,
        views=views,
        repeats=repeats,
        seed=seed,
        process_index=process_index,
        process_count=process_count,
        stream=make_stream(sampling, sources["train"], skip=on_error == "skip"),
        empty_classes=empty_classes,
    )
