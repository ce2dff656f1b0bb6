"""Opens the sources in `config.data.train` and `config.data.test`: source specs or folders."""

import pkgutil
from collections.abc import Mapping

from mae_jax.data import sources
from mae_jax.data.files import expanded
from mae_jax.data.sources import Source
from mae_jax.data.table_files import READERS
from mae_jax.spec import build, check_spec, is_extension, nearest, parse
from mae_jax.types import UserError


def source_spec(text: str, where: str) -> str:
    """The spec string of a source. An existing folder, 'photos', becomes "folder('photos')". Names
    of built-in sources take precedence over folders, and folders over 'my_project.my_source'.

    Args:
        text: value of the setting.
        where: name of the setting, for messages.

    Raises:
        UserError: `text` is neither a source nor a folder.
    """
    known = [module.name for module in pkgutil.iter_modules(sources.__path__)]
    try:
        names = [call.name for call in parse(text)]
    except UserError:
        names = []  # e.g. '/data/photos'
    if any(name in known for name in names):
        return text
    folder = expanded(text)
    try:
        is_folder, is_file = folder.is_dir(), folder.is_file()
    except OSError as error:
        raise UserError(f"{where}={text}: {error.strerror}") from error
    if is_folder:
        return f"folder({text!r})"
    if is_file:
        reader = "table" if folder.suffix.lower() in READERS else "array_file"
        raise UserError(
            f"{where}={text} is a file: give a folder of images, or a source that reads this file, "
            f"such as {reader}({text!r})"
        )
    if "(" in text or any(map(is_extension, names)):
        return text  # building the spec reports the error
    raise UserError(
        f"{where}={text}: there is no folder of that name here (that would be folder({text!r})), "
        f"and no source{nearest(text, known)}"
    )


def open_sources(texts: Mapping[str, str]) -> dict[str, Source]:
    """Opens the source of each split. All specs are checked before the first source is opened.

    Args:
        texts: split -> value of its setting; empty for no source, except for 'train'.

    Raises:
        UserError: a setting is neither a source nor a folder; and what the source raises.
    """
    if not texts["train"]:
        raise UserError("config.data.train is empty: give a source, e.g. folder('photos')")
    named = {split: text for split, text in texts.items() if text}
    specs = {split: source_spec(text, f"config.data.{split}") for split, text in named.items()}
    for spec in specs.values():
        check_spec(spec, "data.sources")
    sources = {split: build(spec, "data.sources", Source) for split, spec in specs.items()}
    for split, source in sources.items():
        if source.num_examples < 1:
            raise UserError(f"config.data.{split}={texts[split]} has no examples")
    return sources


def check_damaged(sources: Mapping[str, Source]) -> None:
    """Raises UserError if a source knows of damaged examples."""
    for split, source in sources.items():
        if source.damaged:
            count, more = len(source.damaged), " and others" if len(source.damaged) > 1 else ""
            raise UserError(
                f"config.data.{split}: cannot read {count} of the files, {source.damaged[0]}{more};"
                f" repair or remove {'them' if more else 'it'}, or have such images skipped: "
                "--config.data.on_error=skip in training, --on-error skip elsewhere"
            )
