"""Predictions for images as files, for `mae-jax predict`: one file for each kind, named like its
evaluator. `make(**options)` returns a `Writer`; `READS` are the outputs of models that it needs,
`OPTIONS` those options that it shares with its evaluator, and `RANK` the number of dimensions of
its images, None for any.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mae_jax.spec import build, parse
from mae_jax.types import Method, UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Writer:
    """Writes the predictions of a model."""

    write: Callable[[Any, Any, Path, Mapping[str, Sequence[str]]], list[str]]
    """(run, state, folder to create, field -> names of its classes) -> what was written, a line
    each. The images are those of the split 'train' of `run.data`."""
    predicted: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]] | None = None
    """Outputs `READS` by name, [N, ...] each -> what they say, e.g. 'probability' [N, K] and
    'prediction' [N]; None: it is not one array for each image."""
    reads: tuple[str, ...] = ()
    """Outputs that `predicted` reads. Set by `make_writer`."""


def make_writer(
    method: Method, name: str, evaluators: str, spec: str = "", *, rank: int | None = None
) -> Writer:
    """The writer for what a method predicts.

    Args:
        method: of the run.
        name: of the method, for messages.
        evaluators: spec string of the run's evaluators; one that is named like the writer has the
            options to use.
        spec: spec string of the writer, to use instead.
        rank: number of dimensions of the images; None: not known.

    Raises:
        UserError: nothing that the method offers can be written, or another spec.
    """
    modules = {
        found.name: importlib.import_module(f"{__name__}.{found.name}")
        for found in pkgutil.iter_modules(__path__)
    }
    modules = {name: module for name, module in modules.items() if "make" in vars(module)}
    fits = lambda module: rank is None or module.RANK in (None, rank)
    known = [
        name
        for name, module in modules.items()
        if {*module.READS} <= {*method.offers()} and fits(module)
    ]
    if not known:
        raise UserError(
            f"{name} offers {', '.join(method.offers())}, and predictions are written of "
            f"{', '.join(sorted(modules))}: see mae-jax features for other outputs"
        )
    if spec and parse(spec)[0].name not in known:
        raise UserError(f"--spec {spec}: {name} predicts {', '.join(known)}")
    options = next((c.kwargs for c in parse(evaluators) if c.name == known[0]), {})
    module = modules[parse(spec)[0].name if spec else known[0]]
    text = ", ".join(f"{k}={value!r}" for k, value in options.items() if k in module.OPTIONS)
    writer = build(spec or f"{known[0]}({text})", "predictions", Writer)
    return dataclasses.replace(writer, reads=tuple(module.READS))


def file_names(source, ending: str = ".png") -> list[str]:
    """The name of each example of a source as that of a PNG, or of a file of another ending; where
    two would be the same, with the ending that they have.
    """
    names = [source.name(index) for index in range(source.num_examples)]
    shared = Path(*_common_folder([Path(name).parts[:-1] for name in names]))
    paths = [Path(name).relative_to(shared) for name in names]
    plain = [str(path.with_suffix("")).removesuffix(".nii") for path in paths]
    counts = {name: plain.count(name) for name in set(plain)}
    return [
        f"{name if counts[name] == 1 else path}{ending}"
        for name, path in zip(plain, paths, strict=True)
    ]


def _common_folder(folders: Sequence[tuple[str, ...]]) -> list[str]:
    """The first parts that all paths have."""
    common = []
    for parts in zip(*folders):
        if len({*parts}) > 1:
            break
        common.append(parts[0])
    return common
