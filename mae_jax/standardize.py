"""Resolves the mean and standard deviation of the pixels: the values of the config or, if these are
'auto' or for another number of channels, the statistics of the data.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from mae_jax.config import AUTO
from mae_jax.ops.pixels import IMAGENET_MEAN, IMAGENET_STD, check_statistics
from mae_jax.types import UserError

IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
UNKNOWN = {"mean": (0.5,), "std": (0.25,)}
"""Values for channels without known statistics."""


class Origin(NamedTuple):
    """A possible origin of mean and standard deviation."""

    text: str
    """For the report, e.g. 'measured over config.data.train'."""
    values: Callable[[], Mapping[str, Sequence[float]]]
    """Returns 'mean' and 'std'; {} if there are none. Called only if needed."""


def check(args: Mapping[str, Any]) -> None:
    """Checks a method's mean and standard deviation without the data.

    Args:
        args: arguments of the method, `config.method.args`.

    Raises:
        UserError: values that are neither 'auto' nor statistics of pixels in [0, 1].
    """
    given = {name: args[name] for name in IMAGENET if name in args and args[name] != AUTO}
    for name, value in given.items():
        if isinstance(value, str):
            raise UserError(
                f"config.method.args.{name}={value!r} must be numbers in [0, 1], such as (0.5,), "
                f"or {AUTO} to measure them over config.data.train"
            )
    check_statistics(given.get("mean", (0.5,)), given.get("std", (0.5,)), "config.method.args.")


def resolve(
    args: Mapping[str, Any], *, channels: int, origins: Sequence[Origin]
) -> tuple[dict[str, tuple[float, ...]], str]:
    """Resolves the mean and standard deviation of a run.

    'mean' or 'std' follows the data if it is 'auto', if its length is neither 1 nor the number of
    channels, or if the other one is 'auto' and it still has the default of ImageNet. For images of
    3 channels a length other than 1 or 3 is an error.

    Args:
        args: arguments of the method, possibly without mean and std.
        channels: number of channels of the images.
        origins: possible origins; the first with values for these channels is used.

    Returns:
        The values to set in `args`, and a line to report about them; {} and '' if none change.

    Raises:
        UserError: a length other than 1 or 3 for images of 3 channels.
    """
    given = {name: args[name] for name in IMAGENET if name in args}
    follow = {name for name, value in given.items() if _follows(name, value, channels)}
    if AUTO in given.values():
        follow |= {name for name, value in given.items() if tuple(value) == IMAGENET[name]}
    if not follow:
        return {}, ""
    chosen, text = UNKNOWN, "as nothing was measured: mae-jax prepare measures them"
    for origin in origins:
        values = origin.values()
        if _fits(values, channels):
            chosen, text = values, origin.text
            break
    each = lambda values: tuple(map(float, values)) * (1 if len(values) > 1 else channels)
    new = {name: each(chosen[name]) for name in given if name in follow}
    listed = " and ".join(f"{name}={_short(values)}" for name, values in new.items())
    plural = "" if channels == 1 else "s"
    return new, f"config.method.args: {listed} for images of {channels} channel{plural}, {text}"


def applied(config: ConfigDict, values: Mapping[str, Sequence[float]]) -> ConfigDict:
    """A copy of a config with the values that `resolve` returns."""
    config = config.copy_and_resolve_references()
    with config.ignore_type():  # 'auto' is no tuple
        config.method.args.update(values)
    return config


def _follows(name: str, value: Any, channels: int) -> bool:
    if value == AUTO:
        return True
    if len(value) in (1, channels):
        return False
    if channels == 3:
        raise UserError(
            f"config.method.args.{name} has {len(value)} values for {channels} channels: give one "
            f"per channel, one for all, or {AUTO} to measure them over config.data.train"
        )
    return True


def _fits(values: Mapping[str, Sequence[float]], channels: int) -> bool:
    """Whether there are values for these channels, and no standard deviation is 0."""
    one_each = all(len(values.get(name, ())) in (1, channels) for name in IMAGENET)
    return one_each and min(values["std"]) > 0


def _short(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)}{',' * (len(values) == 1)})"
