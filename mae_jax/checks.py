"""Whether the parts of a run fit together: images and memory, labels and classes, evaluators and
what they read.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.errors
import jax
from jax.sharding import Mesh

from mae_jax.data import Data
from mae_jax.engine.checkpoint import OtherModel
from mae_jax.engine.memory import check_room
from mae_jax.evals.features import Evaluator
from mae_jax.types import Batch, Method, TrainState, UserError

MISSING = {
    "logits": "needs a classifier: fine-tune or probe first (tasks.finetune, tasks.linear_probe)",
    "heads": "needs one classifier, and this probe has several heads: use the evaluator probe, or "
    "train it with one, config.method.args.lr_factors=(1.0,)",
    "head_logits": "is for tasks.linear_probe: use classify, knn or logistic here",
}
"""What to say of a model that does not give an output."""


def check_image_size(data: Data, mesh: Mesh) -> None:
    """Raises UserError if a batch of what the transforms make cannot fit, before one is made."""
    for stage, batch_size in (("train", data.batch_size), ("eval", data.eval_batch_size)):
        check_room(
            data.least_bytes(stage) * batch_size // mesh.size,
            f"a batch of {batch_size} images of config.data.{stage}_transform",
            "make smaller images there, or lower config.data.batch_size",
        )


def check_batch_size(example: Mapping[str, Any], batch_size: int, mesh: Mesh) -> None:
    """Raises UserError if the devices cannot hold a batch.

    Args:
        example: one of its rows.
    """
    row = sum(math.prod(one.shape) * one.dtype.itemsize for one in example.values())
    check_room(
        row * batch_size // mesh.size,
        f"a batch of config.data.batch_size={batch_size}",
        "lower it",
    )


def check_channels(where: str, theirs: Sequence[int] | None, ours: Sequence[int]) -> None:
    """Checks that images have the channels that a model was trained on.

    Args:
        where: the model is, for the message.
        theirs: [H, W, C] of the images that it was trained on; None: not known.
        ours: [H, W, C] of the images here.

    Raises:
        UserError: they have others.
    """
    if theirs and theirs[-1] != ours[-1]:
        raise UserError(
            f"{where} was trained on images of {theirs[-1]} channel(s), and these have {ours[-1]}: "
            f"read them with as many, e.g. folder('photos', channels={theirs[-1]})"
        )


@contextlib.contextmanager
def explained_by_images(where: str, theirs: Sequence[int] | None, data: Data):
    """Where parameters do not fit because images have another shape than in training, reports the
    images instead of the parameters.

    Args:
        where, theirs: see `check_channels`.

    Raises:
        UserError: parameters do not fit.
    """
    try:
        yield
    except OtherModel as error:
        ours = data.example("train")["image"].shape[1:]
        check_channels(where, theirs, ours)
        if theirs and tuple(theirs) != tuple(ours):
            there, here = (" x ".join(map(str, shape[:2])) for shape in (theirs, ours))
            raise UserError(
                f"{where} was trained on images of {there} pixels, and these have {here}: {error}"
            ) from error
        raise


def check_classes(method: Method, data: Data) -> None:
    """Raises UserError if a classifier cannot learn these labels."""
    if not hasattr(method, "classes"):
        return
    if "label" not in data.example("train"):
        raise UserError(
            "the training set has no labels: give a folder with one sub-folder for each class, and "
            "config.data.fields=('label',)"
        )
    if data.empty_classes:
        raise UserError(
            f"config.data.train has no image of the class {data.empty_classes[0]!r}: put some into "
            "its folder, or remove it"
        )
    for split, source in data.sources.items():
        if len(source.class_names) > method.classes:
            raise UserError(
                f"config.data.{split} has {len(source.class_names)} classes, and "
                f"config.method.args.classes={method.classes}"
            )


def check_evaluators(
    evaluators: Sequence[Evaluator], method: Method, abstract_state: TrainState, data: Data
) -> None:
    """Checks that evaluators find what they need.

    Args:
        abstract_state: shapes of the train state.

    Raises:
        UserError: the model or the data lack it, or the devices have no room for it.
    """
    example = data.example("eval")
    outputs = _outputs(method, abstract_state, data, example)
    for evaluator in evaluators:
        for split in evaluator.splits:
            _check_split(data, evaluator.name, split, example["image"].shape[-1])
        if evaluator.output not in outputs:
            heads = "head_logits" in outputs
            raise UserError(f"{evaluator.name} {MISSING['heads' if heads else evaluator.output]}")
        if "train" in evaluator.splits:
            _check_size(data, evaluator, outputs["features"].shape[-1])


def _outputs(
    method: Method, abstract_state: TrainState, data: Data, example: Batch
) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of what the model predicts for a batch of the evaluation, a row for each device:
    kernels that split batches over them refuse others.
    """
    count = abstract_state.step.sharding.num_devices
    example = {
        name: jax.ShapeDtypeStruct((count, *rows.shape[1:]), rows.dtype)
        for name, rows in example.items()
    }
    try:
        return jax.eval_shape(method.predict, abstract_state.params, abstract_state.extra, example)
    except flax.errors.ScopeParamShapeError as error:
        sizes = [data.example(stage)["image"].shape[1:] for stage in ("train", "eval")]
        raise UserError(
            f"images are {sizes[0]} in training and {sizes[1]} in evaluation, and the learned "
            "positions fit one size: see config.data.train_transform and eval_transform"
        ) from error


def _check_split(data: Data, name: str, split: str, channels: int) -> None:
    if "label" not in data.fields or not data.source(split).class_names:
        raise UserError(
            f"{name} needs labels, and config.data.{split} has none: give a folder with one "
            "sub-folder for each class, and config.data.fields=('label',)"
        )
    found = data.example("eval", split)["image"].shape[-1]
    if found != channels:
        raise UserError(
            f"images have {channels} channel(s) in config.data.train and {found} in "
            f"config.data.{split}: give both sources the same `channels`"
        )


def _check_size(data: Data, evaluator: Evaluator, width: int) -> None:
    source = data.source("train")
    count = min(evaluator.limit or source.num_examples, source.num_examples)
    if count < evaluator.examples:
        raise UserError(
            f"{evaluator.name} asks for {evaluator.examples} of only {count} training examples: "
            "lower k"
        )
    check_room(
        evaluator.memory(count, width, len(source.class_names)),
        f"{evaluator.name} of {count} training examples",
        f"set a limit, e.g. {evaluator.name}(limit={max(1, count // 4)})",
    )
