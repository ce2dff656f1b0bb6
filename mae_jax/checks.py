"""Checks that the parts of a run fit together: batches and memory, labels and classes, evaluators
and the model outputs they read.
"""

import contextlib
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.errors
import jax
import numpy as np
from jax.sharding import Mesh

from mae_jax.data import Data, fields
from mae_jax.engine.checkpoint import OtherModel
from mae_jax.engine.memory import check_room
from mae_jax.evals.features import Evaluator
from mae_jax.types import Method, TrainState, UserError, image_shape


def check_image_size(data: Data, mesh: Mesh) -> None:
    """Raises UserError if a batch of transformed images cannot fit in memory."""
    for stage, batch_size in (("train", data.batch_size), ("eval", data.eval_batch_size)):
        check_room(
            data.least_bytes(stage) * batch_size // mesh.size,
            f"a batch of {batch_size} images of config.data.{stage}_transform",
            "use smaller images there, or lower config.data.batch_size",
        )


def check_batch_size(example: Mapping[str, Any], batch_size: int, mesh: Mesh) -> None:
    """Raises UserError if the devices cannot hold a batch.

    Args:
        example: a batch of one.
    """
    row = sum(math.prod(one.shape) * one.dtype.itemsize for one in example.values())
    check_room(
        row * batch_size // mesh.size,
        f"a batch of config.data.batch_size={batch_size}",
        "lower it",
    )


def check_channels(where: str, theirs: Sequence[int] | None, ours: Sequence[int] | None) -> None:
    """Checks that images have the number of channels that a model was trained on.

    Args:
        where: path of the model, for the message.
        theirs: shape [*space, C] of the model's training images; None if unknown.
        ours: shape [*space, C] of this run's images; None if there are none.

    Raises:
        UserError: the numbers of channels differ.
    """
    if theirs and ours and theirs[-1] != ours[-1]:
        raise UserError(
            f"{where} was trained on images of {theirs[-1]} channel(s), and these have {ours[-1]}: "
            f"read them with {theirs[-1]}"
            + (f", e.g. folder('photos', channels={theirs[-1]})" if theirs[-1] in (1, 3) else "")
        )


@contextlib.contextmanager
def explained_by_images(where: str, theirs: Sequence[int] | None, data: Data):
    """If parameters do not fit because images have another shape than in training, reports the
    shape of the images instead of the parameters'.

    Args:
        where, theirs: see `check_channels`.

    Raises:
        UserError: parameters do not fit.
    """
    try:
        yield
    except OtherModel as error:
        ours = image_shape(data.example("train"))
        check_channels(where, theirs, ours)
        if theirs and ours and tuple(theirs) != ours:
            trained, given = (" x ".join(map(str, shape[:-1])) for shape in (theirs, ours))
            raise UserError(
                f"{where} was trained on images of {trained} pixels, and these have {given}: "
                f"{error}"
            ) from error
        raise


def check_classes(method: Method, data: Data) -> None:
    """Raises UserError if the data lack the method's labels, or have more classes than it."""
    example = data.example("train")
    for field, classes in method.labels().items():
        if field not in example:
            raise UserError(f"the training set has no {plural(field)}: {labeled_by(field)}")
        _check_shape(method, field, classes, example)
        if field == "label" and data.empty_classes:
            raise UserError(
                f"config.data.train has no image of the class {data.empty_classes[0]!r}: add some "
                "to its folder, or remove the folder"
            )
        for split, source in data.sources.items():
            count = len(source.names.get(field, ()))
            if count > classes:
                of = "" if field == "label" else f" of {field}"
                raise UserError(
                    f"config.data.{split} has {count} classes{of}, and "
                    f"config.method.args.classes={classes}"
                )


def check_vocabulary(method: Method, data: Data, advice: str = "") -> None:
    """Raises UserError if the texts of a split have tokens that the method has no room for."""
    size = method.vocabulary_size()
    for split, source in data.sources.items():
        count = len(source.vocabulary or ())
        if size and count > size:
            raise UserError(
                f"the texts of config.data.{split} have a vocabulary of {count} tokens, and "
                f"config.method.args.vocabulary={size}: {advice or f'set it to {count}'}"
            )


def _check_shape(method: Method, field: str, classes: int, example: Mapping[str, Any]) -> None:
    """Raises UserError if labels for whole images have another shape than the method reads."""
    if not image_shape(example) or fields.of(field).holds == "classes":
        return
    ours, theirs = method.example(image_shape(example))[field].shape[1:], example[field].shape[1:]
    if ours != theirs:
        raise UserError(
            f"{field!r} has the shape {list(theirs)} for each example, and with "
            f"config.method.args.classes={classes} it should have {list(ours)}: set classes to "
            f"{theirs[-1] if theirs else 1}"
        )


def plural(field: str) -> str:
    """'labels' for 'label' and 'labels'."""
    return field if field.endswith("s") else f"{field}s"


def labeled_by(field: str) -> str:
    """How to provide a field of labels, for messages."""
    if field == "label":
        return "use a folder with one sub-folder per class, and config.data.fields=('label',)"
    return f"use a source that has them, and config.data.fields=('{field}',)"


def check_tokens(text: np.ndarray, size: int) -> None:
    """Raises UserError unless the tokens of texts are in [0, `size`), the method's vocabulary."""
    if text.size and not 0 <= text.min() <= text.max() < size:
        raise UserError(
            f"a text has the token {text.max()}, and config.method.args.vocabulary={size}: raise it"
        )


def check_evaluators(
    evaluators: Sequence[Evaluator],
    name: str,
    method: Method,
    abstract_state: TrainState,
    data: Data,
) -> None:
    """Checks that evaluators find the outputs, fields, splits and memory they need.

    Args:
        name: name of the method.
        abstract_state: shapes and shardings of the train state.

    Raises:
        UserError: the model or the data lack one of them, or the devices lack memory.
    """
    wanted = dict.fromkeys(output for evaluator in evaluators for output in evaluator.outputs)
    example = _eval_example(abstract_state, data)
    known = [output for output in wanted if _offered(method, name, output)]
    outputs = _outputs(name, method, abstract_state, data, example, known)
    for evaluator in evaluators:
        for split in evaluator.needs:
            _check_split(data, evaluator, split, method.inputs)
        missing = [output for output in evaluator.outputs if output not in outputs]
        if missing:
            offered = ", ".join(method.offers())
            advice = f": {evaluator.advice}" if evaluator.advice else ""
            raise UserError(
                f"{evaluator.name} reads the output {missing[0]!r}, and {name} has "
                f"{offered}{advice}"
            )
        read = {output: outputs[output] for output in evaluator.outputs}
        if evaluator.reduce:
            _check_reduce(evaluator, read, {**example, **evaluator.adds(example)})
        if "train" in evaluator.needs:
            shapes = [output.shape[1:] for output in read.values()]
            _check_size(data, evaluator, max(map(math.prod, shapes), default=0))


def _offered(method: Method, name: str, output: str) -> bool:
    try:
        method.check_output(name, output)
    except UserError:
        return False
    return True


def _eval_example(abstract_state: TrainState, data: Data) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of an evaluation batch of one row per device, as kernels that split batches over
    devices accept no fewer.
    """
    count = abstract_state.step.sharding.num_devices
    return {
        name: jax.ShapeDtypeStruct((count, *rows.shape[1:]), rows.dtype)
        for name, rows in data.example("eval").items()
    }


def _outputs(
    name: str,
    method: Method,
    abstract_state: TrainState,
    data: Data,
    example: Mapping[str, jax.ShapeDtypeStruct],
    names: Sequence[str],
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the named outputs for an evaluation batch."""
    for field in method.reads(tuple(names)):
        if field not in example:
            outputs = ", ".join(names)
            raise UserError(f"{name}: {outputs} of data without {field!r}: {labeled_by(field)}")
    predict = functools.partial(method.predict, outputs=tuple(names))
    try:
        outputs = jax.eval_shape(predict, abstract_state.params, abstract_state.extra, example)
    except flax.errors.ScopeParamShapeError as error:
        field = method.inputs[0]
        sizes = [data.example(stage)[field].shape[1:] for stage in ("train", "eval")]
        raise UserError(
            f"{field}s are {sizes[0]} in training and {sizes[1]} in evaluation, and the learned "
            "position embeddings fit one size: make config.data.train_transform and "
            "eval_transform agree"
        ) from error
    rows = next(iter(example.values())).shape[0]
    if {*outputs} != {*names} or any(x.shape[:1] != (rows,) for x in outputs.values()):
        shapes = {output: x.shape for output, x in outputs.items()}
        raise UserError(
            f"{name}: predict returned {shapes} for a batch of {rows} and the outputs "
            f"{', '.join(names)}: it must return exactly these, with one row per example"
        )
    return outputs


def _check_reduce(
    evaluator: Evaluator,
    outputs: Mapping[str, jax.ShapeDtypeStruct],
    example: Mapping[str, jax.ShapeDtypeStruct],
) -> None:
    """Raises UserError if the evaluator's `reduce` cannot be traced."""
    try:
        jax.eval_shape(evaluator.reduce, outputs, example)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        text = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(f"{evaluator.name}: its reduce fails: {text}") from error


def _check_split(data: Data, evaluator: Evaluator, split: str, inputs: Sequence[str]) -> None:
    example, ours = data.example("eval", split), data.example("eval")
    unnamed = evaluator.class_names and not data.source(split).names.get("label")
    for field in evaluator.needs[split]:
        if field not in example or (field == "label" and unnamed):
            raise UserError(
                f"{evaluator.name} needs {plural(field)}, and config.data.{split} has none: "
                f"{labeled_by(field)}"
            )
    for field in inputs:
        train = ours[field].shape[1:]
        shape = example[field].shape[1:] if field in example else ()
        if field == "image" and train[-1:] != shape[-1:]:
            raise UserError(
                f"images have {train[-1]} channel(s) in config.data.train and {shape[-1]} in "
                f"config.data.{split}: give both sources the same `channels`"
            )
        if train != shape:
            raise UserError(
                f"{field}s are {train} in config.data.train and {shape} in config.data.{split}: "
                "make the shapes equal, e.g. with config.data.eval_transform"
            )


def _check_size(data: Data, evaluator: Evaluator, width: int) -> None:
    source = data.source("train")
    count = min(evaluator.limit or source.num_examples, source.num_examples)
    if count < evaluator.examples:
        raise UserError(
            f"{evaluator.name} needs {evaluator.examples} training examples, and there are only "
            f"{count}: lower k"
        )
    check_room(
        evaluator.memory(count, width, len(source.names.get("label", ()))),
        f"{evaluator.name} of {count} training examples",
        f"set a limit, e.g. {evaluator.name}(limit={max(1, count // 4)})",
    )
