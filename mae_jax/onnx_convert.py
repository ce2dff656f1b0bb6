"""Converts functions of arrays to ONNX (https://onnx.ai) by jax2onnx, of the extra `onnx`."""

import contextlib
import importlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
from jax.extend.core import jaxpr_as_fun

from mae_jax.types import UserError


def to_onnx(
    function: Callable[..., Any],
    inputs: Mapping[str, jax.ShapeDtypeStruct],
    outputs: Sequence[str],
    way_out: str,
) -> Any:
    """Converts a function of arrays to an `onnx.ModelProto`.

    Args:
        function: from the inputs, in their order, to an array for each output: one, or a tuple.
        inputs: name -> shape, whose sizes may be symbolic, and type.
        outputs: their names.
        way_out: advice if the converter does not know an operation.

    Raises:
        UserError: the converter is not installed, or does not support the function.
    """
    jax2onnx = converter()
    with _quiet():
        # The converter replaces Flax layers by its own, which do not support `vmap`. A traced
        # function has no layers left to replace.
        traced = jax.make_jaxpr(function)(*inputs.values())
        try:
            proto = jax2onnx.to_onnx(
                lambda *inputs: tuple(jaxpr_as_fun(traced)(*inputs)),
                [*inputs.values()],
                model_name="mae_jax",
                input_names=[*inputs],
                output_names=[*outputs],
            )
        except NotImplementedError as error:
            raise UserError(
                f"jax2onnx cannot convert this model ({error}): {way_out}, or try a newer jax2onnx"
            ) from error
    _drop_unused(proto.graph)
    return proto


def check_onnx(content: bytes, way_out: str) -> None:
    """Checks that a converted model of less than 2 GB is valid, as the converter also writes
    operations that the model's version of ONNX does not have.

    Args:
        way_out: advice if it is not.

    Raises:
        UserError: it is not.
    """
    checker = importlib.import_module("onnx.checker")
    try:
        checker.check_model(content)
    except checker.ValidationError as error:
        raise UserError(f"jax2onnx cannot convert this model ({error}): {way_out}") from error


def converter() -> ModuleType:
    """The package jax2onnx.

    Raises:
        UserError: it is not installed.
    """
    with _quiet():
        try:
            jax2onnx, _ = map(importlib.import_module, ("jax2onnx", "onnx"))
        except ImportError as error:
            raise UserError(
                f"format onnx needs a converter ({error}): pip install jax2onnx"
            ) from error
    return jax2onnx


def _drop_unused(graph: Any) -> None:
    """Removes constants that no node reads, as runtimes would warn about them."""
    read = {name for node in graph.node for name in node.input}
    used = [constant for constant in graph.initializer if constant.name in read]
    del graph.initializer[:]
    graph.initializer.extend(used)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Disables logging below errors: the converter warns about layers that are not used here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
