"""Options of the XLA compiler, by platform: where its own defaults are not the best for these
programs, and where a config asks for others.
"""

import re
from collections.abc import Mapping

import jax
from jax.sharding import Mesh

from mae_jax.engine.mesh import platform_of, replicated
from mae_jax.types import UserError

Options = dict[str, str]

DEFAULTS: Mapping[str, Options] = {
    "tpu": {
        # Over 64 chips or more, fsdp else gathers no parameters but reduces arrays that are zero
        # outside of each shard: three times the bytes, and the step waits for them. A ViT of one
        # block on v5e:8x8 had 10 all-reduces of 2.7 MB and no all-gather; with this it has 19
        # all-gathers of 1.6 MB and 7 all-reduces of 1.1 MB. Programs for data, hybrid, several
        # slices and fsdp over 16 chips stay the same (libtpu 0.0.42.1).
        "xla_tpu_prefer_async_allgather_to_allreduce": "True",
    },
    "gpu": {},
    "cpu": {},
}
"""Platform -> options that differ from the compiler's."""


def compiler_options(mesh: Mesh, *, tpu: str = "", gpu: str = "", cpu: str = "") -> Options:
    """The options to compile with on a mesh: `DEFAULTS`, changed by those of a config.

    Args:
        tpu, gpu, cpu: 'name=value,name=value' for a platform; the value 'default' leaves an option
            to the compiler.

    Raises:
        UserError: an option that cannot be read, or that the compiler of the mesh does not take.
    """
    given = {name: parse(name, text) for name, text in (("tpu", tpu), ("gpu", gpu), ("cpu", cpu))}
    platform = platform_of(mesh)
    options = DEFAULTS.get(platform, {}) | given.get(platform, {})
    options = {name: value for name, value in options.items() if value != "default"}
    _try(mesh, options, platform)
    return options


def parse(platform: str, text: str) -> Options:
    """Reads the options of a platform; see `compiler_options`.

    Raises:
        UserError: not of the form, or an option twice.
    """
    options: Options = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, value = part.partition("=")
        where = f"config.compiler.{platform}: {part!r}"
        if not equals or not re.fullmatch(r"xla_\w+", name):
            raise UserError(f"{where} is no option: write xla_NAME=VALUE,xla_NAME=VALUE")
        if name in options:
            raise UserError(f"{where} sets {name} again: leave one of them")
        # XLA on CPUs knows True, and not true.
        options[name] = value.capitalize() if value.lower() in ("true", "false") else value
    return options


def check(*, tpu: str = "", gpu: str = "", cpu: str = "") -> None:
    """Checks the form of a config's options without devices.

    Raises:
        UserError: see `parse`.
    """
    for platform, text in (("tpu", tpu), ("gpu", gpu), ("cpu", cpu)):
        parse(platform, text)


def differing(options: Options, mesh: Mesh) -> list[str]:
    """A line if these are not the defaults."""
    platform = platform_of(mesh)
    if options == DEFAULTS.get(platform, {}):
        return []
    return [f"compiler options for {platform}: {_shown(options) or 'none'}"]


def _shown(options: Options) -> str:
    """Options as a config has them."""
    return ",".join(f"{name}={value}" for name, value in options.items())


def _try(mesh: Mesh, options: Options, platform: str) -> None:
    """Raises UserError unless the compiler takes the options: it names them before it compiles."""
    if not options:
        return
    nothing = jax.jit(lambda: 0, out_shardings=replicated(mesh), compiler_options=options)
    try:
        nothing.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0].removeprefix("INVALID_ARGUMENT: ")
        raise UserError(
            f"XLA for {platform} does not take the compiler options {_shown(options)} ({reason}): "
            f"change config.compiler.{platform}; NAME=default leaves an option out"
        ) from error
