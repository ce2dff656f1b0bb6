"""A classifier of volumes and clips, evaluated on several crops of each example: clips that are
spread over a video, and crops over its frames. VideoMAE (Tong et al. 2022, arXiv 2203.12602) has 5
clips x 3 crops on Kinetics, and 2 x 3 on Something-Something.
"""

import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from mae_jax.data.images import BadImage, Encoded, pixels_of
from mae_jax.data.order import evaluated
from mae_jax.evals.classes import softmax
from mae_jax.evals.classify import ONE_CLASSIFIER, check_labels, score, summary
from mae_jax.evals.features import EvalData, Evaluator, Predict, check_limit
from mae_jax.evals.sliding import unreadable
from mae_jax.types import Metric, UserError

logger = logging.getLogger(__name__)


def make(
    *,
    size: Sequence[int],
    stride: int = 1,
    clips: int = 5,
    crops: int = 3,
    split: str = "test",
    limit: int | None = None,
) -> Evaluator:
    """An evaluator: run(predict, data) -> 'top1_views', 'top5_views', 'nll_views' and 'ece_views',
    as `classify` defines them, of the mean of the probabilities over the views of each example.
    Examples are read without `config.data.eval_transform`.

    Args:
        size: of a view, the size of images after `config.data.eval_transform`: one number of pixels
            for each axis, such as (16, 224, 224) for frames, height and width.
        stride: distance of the frames of a view, along the first axis.
        clips: views along the first axis, evenly spread from the first to the last possible one;
            1: the middle.
        crops: views along that other axis which exceeds `size` most, spread in the same way; the
            middle along the rest.
        split: of the data.
        limit: use at most so many examples, spread over the split.

    Raises:
        UserError: a value that cannot be; when called: another size, an example that is smaller
            than a view and not skipped, or labels outside of the classifier's classes.
    """
    check_limit("views", limit)
    numbers = (*size, stride, clips, crops)
    if len(size) < 2 or not all(type(n) is int and n > 0 for n in numbers):
        raise UserError(
            f"views: size={tuple(size)}, stride={stride}, clips={clips} and crops={crops} must be "
            "positive, and size a number for each axis, such as (16, 224, 224)"
        )

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        trained = data.example("eval", split)["image"].shape[1:-1]
        if trained != tuple(size):
            raise UserError(
                f"views: size={tuple(size)} should be that of images after "
                f"config.data.eval_transform, {trained}"
            )
        cut = lambda image: views(image, size, stride, clips, crops)
        found = list(_probabilities(predict, data, split, limit, cut, clips * crops))
        if not found:
            raise UserError(f"the {split} split has no example that can be read")
        probabilities, labels = (np.stack(part) for part in zip(*found, strict=True))
        check_labels(labels, probabilities.shape[-1], split)
        with np.errstate(divide="ignore"):
            scores = score(np.log(probabilities), labels)
        metrics = summary(scores, probabilities.shape[-1])
        return {f"{name}_views": value for name, value in metrics.items()}

    return Evaluator(
        name="views",
        run=run,
        outputs=("logits",),
        needs={split: ("label",)},
        reduce=lambda outputs, batch: {"logits": outputs["logits"]},
        metrics={
            "top1_views": Metric(),
            "top5_views": Metric(table="further"),
            "nll_views": Metric("nats", 3, lower_is_better=True, table="further"),
            "ece_views": Metric(lower_is_better=True, table="further"),
        },
        advice=ONE_CLASSIFIER,
    )


def _probabilities(
    predict: Predict, data: EvalData, split: str, limit: int | None, cut, count: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Mean probabilities [K] float64 and label of each example that can be read.

    Args:
        cut: image -> its `count` views, a list of [*size, C].
    """
    source, processes = data.source(split), jax.process_count()
    # Each process reads all examples, and predicts its part of the views.
    indices = evaluated(source.num_examples, limit).tolist()
    groups = [[index] * processes for index in indices]
    rows = -(-count // jax.device_count()) * jax.device_count() // processes
    mine = slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)
    examples = data.originals(split, groups, processes, decoded=False)
    for (index, *_), (example,) in zip(groups, examples, strict=True):
        if example is None:
            continue
        try:
            images = cut(example["image"])
        except BadImage as error:
            logger.warning(unreadable(data, split, index, error))
            continue
        padded = [*images, *[images[-1]] * (rows * processes - count)][mine]
        batch = {"image": np.stack(padded), "valid": np.ones(len(padded), bool)}
        logits = np.asarray(predict(batch)["logits"])[:count]
        yield softmax(logits).mean(0), int(example["label"])


def views(image: Any, size: Sequence[int], stride: int, clips: int, crops: int) -> list[np.ndarray]:
    """The views [*size, C] of an image [*space, C], see `make`: all crops of the first clip, then
    those of the next.

    Raises:
        UserError: the image has another rank.
        BadImage: it is smaller than a view, or cannot be read.
    """
    image = pixels_of(image) if isinstance(image, Encoded) else image
    spans = ((size[0] - 1) * stride + 1, *size[1:])
    if image.ndim != len(size) + 1:
        raise UserError(
            f"views: size={tuple(size)} has {len(size)} numbers, and images of shape {image.shape} "
            f"have {image.ndim - 1} axes besides the channels: give one for each"
        )
    margins = np.subtract(image.shape[:-1], spans)
    if min(margins) < 0:
        raise BadImage(
            f"it is {' x '.join(map(str, image.shape[:-1]))}, and a view of size={tuple(size)} at "
            f"stride={stride} takes {' x '.join(map(str, spans))}"
        )
    wide = 1 + int(np.argmax(margins[1:]))
    found = []
    for clip, crop in itertools.product(range(clips), range(crops)):
        places = [0.5] * len(size)
        places[0] = clip / (clips - 1) if clips > 1 else 0.5
        places[wide] = crop / (crops - 1) if crops > 1 else 0.5
        begin = [int(margin * place) for margin, place in zip(margins, places, strict=True)]
        part = [slice(at, at + span) for at, span in zip(begin, spans, strict=True)]
        part[0] = slice(part[0].start, part[0].stop, stride)
        found.append(image[tuple(part)])
    return found
