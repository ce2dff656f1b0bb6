"""Options of the XLA compiler, by platform: defaults that are better for these programs than XLA's
own, and the options of a config.
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
        # With fsdp over 64 chips or more, XLA replaces each all-gather of parameters by an
        # all-reduce of zero-padded shards: three times the bytes, synchronous. This option keeps
        # all-gathers. A ViT of one block on v5e:8x8 had 10 all-reduces of 2.7 MB and no all-gather;
        # with this it has 19 all-gathers of 1.6 MB and 7 all-reduces of 1.1 MB. Programs for data,
        # hybrid, several slices and fsdp over 16 chips stay the same (libtpu 0.0.42.1).
        "xla_tpu_prefer_async_allgather_to_allreduce": "True",
    },
    "gpu": {},
    "cpu": {},
}
"""Platform -> options that differ from XLA's defaults. An option that a compiler does not accept is
left out and reported, see `changed_options`.
"""


def compiler_options(mesh: Mesh, *, tpu: str = "", gpu: str = "", cpu: str = "") -> Options:
    """The compiler options for a mesh: `DEFAULTS`, updated by those of a config.

    Args:
        tpu, gpu, cpu: 'name=value,name=value' for a platform; the value 'default' keeps XLA's own
            default of an option.

    Raises:
        UserError: an option of the config that is malformed, or that the compiler of the mesh does
            not accept.
    """
    given = {name: parse(name, text) for name, text in (("tpu", tpu), ("gpu", gpu), ("cpu", cpu))}
    platform = platform_of(mesh)
    asked = given.get(platform, {})
    chosen = {name: value for name, value in asked.items() if value != "default"}
    check_accepted(mesh, chosen)
    ours = {
        name: value
        for name, value in DEFAULTS.get(platform, {}).items()
        if name not in asked and not _refusal(mesh, {name: value})
    }
    return ours | chosen


def parse(platform: str, text: str) -> Options:
    """Parses the options of a platform; see `compiler_options`.

    Raises:
        UserError: malformed text, or an option twice.
    """
    if not isinstance(text, str):
        raise UserError(f"config.compiler.{platform}={text} must be text: '' for no options")
    options: Options = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, value = part.partition("=")
        where = f"config.compiler.{platform}: {part!r}"
        if not equals or not re.fullmatch(r"xla_\w+", name):
            raise UserError(f"{where} is not an option: write xla_NAME=VALUE,xla_NAME=VALUE")
        if name in options:
            raise UserError(f"{where} sets {name} again: keep one of them")
        # XLA on CPUs accepts True, but not true.
        options[name] = value.capitalize() if value.lower() in ("true", "false") else value
    return options


def check(*, tpu: str = "", gpu: str = "", cpu: str = "") -> None:
    """Checks the form of a config's options without devices.

    Raises:
        UserError: see `parse`.
    """
    for platform, text in (("tpu", tpu), ("gpu", gpu), ("cpu", cpu)):
        parse(platform, text)


def changed_options(options: Options, mesh: Mesh) -> list[str]:
    """Lines to report: defaults that the compiler does not accept, and options that differ from
    `DEFAULTS`.

    Args:
        options: result of `compiler_options` for this mesh.
    """
    platform, lines = platform_of(mesh), []
    defaults = dict(DEFAULTS.get(platform, {}))
    for name in [name for name in defaults if name not in options]:
        if reason := _refusal(mesh, {name: defaults[name]}):
            shown = _shown({name: defaults.pop(name)})
            lines.append(
                f"XLA for {platform} does not accept the default compiler option {shown} "
                f"({reason}): it is left out"
            )
    if options != defaults:
        lines.append(f"compiler options for {platform}: {_shown(options) or 'none'}")
    return lines


def check_accepted(mesh: Mesh, options: Options) -> None:
    """Raises UserError unless the compiler of the mesh accepts the options of a config."""
    if reason := _refusal(mesh, options):
        platform = platform_of(mesh)
        raise UserError(
            f"XLA for {platform} does not accept the compiler options {_shown(options)} "
            f"({reason}): change config.compiler.{platform}; NAME=default leaves an option out"
        )


def _refusal(mesh: Mesh, options: Options) -> str:
    """Why the compiler of the mesh refuses options; '' if it accepts them. It parses them before it
    compiles, so an empty program is enough.
    """
    if not options:
        return ""
    nothing = jax.jit(lambda: 0, out_shardings=replicated(mesh), compiler_options=options)
    try:
        nothing.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        return str(error).splitlines()[0].removeprefix("INVALID_ARGUMENT: ")
    return ""


def _shown(options: Options) -> str:
    """Options in the form of a config."""
    return ",".join(f"{name}={value}" for name, value in options.items())
