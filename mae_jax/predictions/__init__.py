"""Predictions for images as files, for `mae-jax predict`: one file for each output of models, named
like it, whose `make(**options)` returns a `Writer`.
"""

import dataclasses
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mae_jax.spec import build, parse
from mae_jax.types import Method, UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Writer:
    """Writes the predictions of a model."""

    write: Callable[[Any, Any, Path, Mapping[str, Sequence[str]]], list[str]]
    """(run, state, folder to create, field -> names of its classes) -> what was written, a line
    each. The images are those of the split 'train' of `run.data`."""


def make_writer(method: Method, name: str, evaluators: str, spec: str = "") -> Writer:
    """The writer for what a method predicts.

    Args:
        method: of the run.
        name: of the method, for messages.
        evaluators: spec string of the run's evaluators; one that is named like the writer has the
            options to use.
        spec: spec string of the writer, to use instead.

    Raises:
        UserError: nothing that the method offers can be written, or another spec.
    """
    known = {found.name for found in pkgutil.iter_modules(__path__)}
    outputs = [output for output in method.offers() if output in known]
    if not outputs:
        raise UserError(
            f"{name} offers {', '.join(method.offers())}, and predictions are written of "
            f"{', '.join(sorted(known))}: see mae-jax features for other outputs"
        )
    if spec and parse(spec)[0].name not in outputs:
        raise UserError(f"--spec {spec}: {name} predicts {', '.join(outputs)}")
    options = next((c.kwargs for c in parse(evaluators) if c.name == outputs[0]), {})
    options = {key: value for key, value in options.items() if key != "limit"}
    text = ", ".join(f"{key}={value!r}" for key, value in options.items())
    return build(spec or f"{outputs[0]}({text})", "predictions", Writer)
