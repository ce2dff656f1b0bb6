"""Data sets prepared by TensorFlow Datasets (TFDS), in ArrayRecord or TFRecord files.

Both have random access, one encoded image at a time, from any number of threads, without
TensorFlow. ArrayRecord files hold an index and checksums. For TFRecord files, opening the set reads
the offset of every record (8 bytes): two seconds per million if cached, otherwise a seek each.
ArrayRecord is preferable; TFDS converts to it (with an absolute path):

    pip install apache-beam mlcroissant
    tfds convert_format --dataset_version_dir=/data/mnist/3.0.1 --out_file_format=array_record
"""

import contextlib
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from mae_jax.data import alpha, vocabulary
from mae_jax.data.class_ids import Classes, ClassIds, Ids
from mae_jax.data.decoding import MAX_PIXELS
from mae_jax.data.images import BadImage, Window, decode_mask
from mae_jax.data.objects import MASK_SIZE, boxed, training_fields
from mae_jax.data.orientation import turned, turned_boxes
from mae_jax.data.packed_groups import groups_of
from mae_jax.data.prepared import statistics_of
from mae_jax.data.reading import CHANGES, Reading, spread
from mae_jax.data.record_files import check_files
from mae_jax.data.shards import TEXTS
from mae_jax.data.sources import Source
from mae_jax.data.tfds_sets import features_of, first_line, open_builder, paths_of
from mae_jax.data.tfrecords import TFRecords
from mae_jax.types import UserError

NAMES = ("filename", "file_name")
"""Features with the name of an example."""


class Prepared(Source):
    """One split of a prepared data set; see `make`.

    Args:
        builder: a TFDS builder of a prepared set.
        split: split as in TFDS.
        features: field -> path of its feature; 'image' is required.
        decoder: turns bytes of files into images.
        max_boxes: rows of 'box'.
        class_ids: makes classes of the numbers in segmentations; None: they are classes.
    """

    reading = CHANGES

    def __init__(
        self,
        builder,
        split: str,
        features: Mapping[str, str],
        decoder: Reading,
        *,
        max_boxes: int,
        class_ids: ClassIds | None = None,
    ):
        from tensorflow_datasets import decode
        from tensorflow_datasets import features as kinds

        known = builder.info.features
        self.split, self.features = split, dict(features)
        self.decoder, self.max_boxes, self.class_ids = decoder, max_boxes, class_ids
        self.records = _open_records(builder, split)
        self.num_examples = len(self.records)
        self.digest = _digest(builder.info, split)
        self._groups = groups_of(builder.info, split)
        if decoder.background == alpha.color_of("tfds", alpha.WHITE):  # as in `prepare`
            self.statistics = statistics_of(builder.info, split, decoder.channels, decoder.window)
        names = tuple(known[features["label"]].names) if "label" in features else ()
        self.names = {"label": names} if names else {}
        self.names |= {"segmentation": class_ids.names} if class_ids else {}
        if "text" in features:
            self.vocabulary = vocabulary.load(Path(builder.info.data_dir, vocabulary.FILE))
            self.digest = f"{self.digest} {self.vocabulary.hash}"
        if "box_label" in features:
            self.names["box_label"] = tuple(paths_of(known)[features["box_label"]].names)
        texts = [name for name, feature in known.items() if isinstance(feature, kinds.Text)]
        self._name = next((name for name in NAMES if name in texts), None)
        needed = {path.split("/")[0] for path in (*features.values(), self._name) if path}
        self._parser = kinds.FeaturesDict({name: known[name] for name in needed})
        encoded = [path for field, path in features.items() if field in ("image", "segmentation")]
        self._decoders = {path: decode.SkipDecoding() for path in encoded}
        self.notes = decoder.look(self._some())

    def _some(self) -> Iterator[bytes]:
        """The files of a few images, spread over all of them."""
        for index in spread(self.num_examples):
            with contextlib.suppress(BadImage):  # reading it in training reports the error
                yield _at(self._example(index), self.features["image"])

    def name(self, index: int) -> str:
        """File name of an example if the set has it, otherwise e.g. 'train[123]'."""
        default = f"{self.split}[{index}]"
        try:
            return os.fsdecode(self._example(index)[self._name]) if self._name else default
        except BadImage:
            return default

    def group(self, index: int) -> str:
        """Number of the example's group; without groups, its name."""
        return self.name(index) if self._groups is None else str(self._groups[index])

    def groups(self) -> np.ndarray | None:
        """[N] int32, if `mae-jax prepare` has packed them."""
        return self._groups

    def read(self, indices: np.ndarray) -> dict[str, list]:
        """Reads 'image', still encoded, and the other fields of the set."""
        rows = [self._row(int(index)) for index in indices]
        return {field: [row[field] for row in rows] for field in (rows[0] if rows else ())}

    def _example(self, index: int) -> Mapping[str, Any]:
        try:
            record = self.records[index]
            return self._parser.deserialize_example_np(record, decoders=self._decoders)
        except (OSError, RuntimeError, DecodeError, KeyError, TypeError, ValueError) as error:
            raise BadImage(f"the record of {self.split}[{index}]: {error}") from error

    def _row(self, index: int) -> dict[str, Any]:
        example = self._example(index)
        value = {field: _at(example, path) for field, path in self.features.items()}
        image = self.decoder(value["image"])  # TFDS ignores orientations: masks are as stored
        row = {"image": image}
        if "label" in value:
            row["label"] = int(value["label"])
        if "text" in value:
            row |= {"text": value["text"], "text_valid": value["text_valid"].astype(bool)}
        if "segmentation" in value:
            mask = decode_mask(value["segmentation"], self.decoder.max_pixels)
            mask = self.class_ids(mask, "its segmentation") if self.class_ids else mask
            row["segmentation"] = turned(mask, image.orientation)
        if "box" in value:
            boxes = turned_boxes(
                np.asarray(value["box"], np.float32).reshape(-1, 4), image.orientation
            )
            if "box_label" in value:
                objects = boxed(boxes, value["box_label"], value.get("crowd"), image.shape)
                rows = objects.largest(self.max_boxes)
                return row | training_fields(objects, rows, self.max_boxes, MASK_SIZE)
            if len(boxes) > self.max_boxes:
                raise BadImage(f"{len(boxes)} boxes: raise max_boxes of the source")
            row["box"] = np.pad(boxes, ((0, self.max_boxes - len(boxes)), (0, 0)))
        return row


def _open_records(builder, split: str):
    """The serialized examples of a split, by index; safe to read from several threads."""
    from tensorflow_datasets import decode

    info, formats = builder.info, sorted(f.value for f in builder.info.available_file_formats())
    try:
        if info.splits[split].num_examples < 1:
            raise ValueError("it is empty")
    except ValueError as error:
        raise UserError(
            f"{info.full_name} has no split {split!r} ({first_line(error)}): choose one of "
            f"{', '.join(sorted(info.splits))}, or a part of one, e.g. 'train[:90%]'"
        ) from error
    if "array_record" in formats:
        if importlib.util.find_spec("array_record") is None:
            raise UserError(f"{info.full_name} is in ArrayRecord files: pip install array_record")
        raw = decode.DeserializeMethod.RAW_BYTES
        source = builder.as_data_source(split, deserialize_method=raw, file_format="array_record")
        check_files([part.filename for part in info.splits[split].file_instructions])
        return source
    if "tfrecord" in formats:
        return TFRecords(info.splits[split].file_instructions)
    raise UserError(
        f"{info.full_name} is in {', '.join(formats)} files, which have no random access: convert "
        f"them, tfds convert_format --dataset_version_dir={Path(info.data_dir).absolute()} "
        "--out_file_format=array_record"
    )


def _digest(info, split: str) -> str:
    """Hash of the set's name, split and sizes, independent of the format of its files."""
    sizes = {k: [*map(int, s.shard_lengths), int(s.num_bytes)] for k, s in info.splits.items()}
    text = json.dumps([info.full_name, split, sizes], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _at(example: Mapping[str, Any], path: str) -> Any:
    for part in path.split("/"):
        example = example[part]
    return example


def make(
    path_or_name: str,
    *,
    split: str = "train",
    data_dir: str | None = None,
    image: str = "image",
    label: str = "label",
    segmentation: str = "",
    classes: Classes = None,
    ids: Ids = None,
    reduce_zero_label: bool = False,
    box: str = "",
    box_label: str = "",
    crowd: str = "",
    max_boxes: int = 100,
    channels: int = 3,
    window: Window | None = None,
    background: str | int | alpha.Color = alpha.WHITE,
    max_pixels: int = MAX_PIXELS,
) -> Prepared:
    """A split of a data set that TFDS has prepared on a local disk. One that `mae-jax prepare` has
    packed with captions has the fields 'text' and 'text_valid', too.

    Args:
        path_or_name: folder of a prepared set, which holds a dataset_info.json, or a name, e.g.
            'cifar10' or 'imagenet2012:5.1.0'.
        split: e.g. 'train', 'train[:90%]' or 'train[:1000]+test'.
        data_dir: parent folder of named sets; ~/tensorflow_datasets by default.
        image: name of the feature with the image.
        label: name of the feature with the class; empty for none. The default may be missing. An
            unknown class is -1 in TFDS.
        segmentation: name of the feature with an image of class numbers; empty for none.
        classes, ids, reduce_zero_label: what these numbers mean, see `pairs`, e.g. classes=150 and
            reduce_zero_label=True for the 'annotation' of scene_parse150; by default as they are.
        box: path of the feature with boxes, e.g. 'objects/bbox'; empty for none.
        box_label, crowd: paths of the features with their classes, and with the flags of crowds,
            which only evaluations read, e.g. 'objects/label' and 'objects/is_crowd' of coco/2017.
        max_boxes: rows of 'box', padded with zeros; of more boxes with classes, the largest.
        channels: 3 (color), 1 (gray) or 4 (color and alpha).
        window: (low, high), the values that become 0 and 255, for images of more than 8 bits per
            channel; None: the full range of their bits.
        background: color behind transparent pixels, unless channels is 4, see `folder`.
        max_pixels: larger images are refused.

    Raises:
        UserError: there is no such set, split or feature, or files are missing or without random
            access; the message lists the choices or the fix.
    """
    decoder = Reading(
        "tfds", channels=channels, window=window, background=background, max_pixels=max_pixels
    )
    if max_boxes < 1:
        raise UserError(f"tfds: max_boxes {max_boxes} must be at least 1")
    opened = open_builder(path_or_name, data_dir)
    features = features_of(
        opened.info,
        image=image,
        label=label,
        segmentation=segmentation,
        box=box,
        box_label=box_label,
        crowd=crowd,
    )
    if Path(opened.info.data_dir, vocabulary.FILE).exists():
        features |= {field: field for field in TEXTS}
    if (box_label and not box) or (crowd and not box_label):
        raise UserError("tfds: crowd needs box_label=..., and box_label needs box=...")
    class_ids = None
    if classes is not None or ids is not None or reduce_zero_label:
        if not segmentation:
            raise UserError("tfds: classes, ids and reduce_zero_label need segmentation=...")
        class_ids = ClassIds("tfds", classes=classes, reduce_zero_label=reduce_zero_label, ids=ids)
    return Prepared(opened, split, features, decoder, max_boxes=max_boxes, class_ids=class_ids)
