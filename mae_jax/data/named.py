"""What the text in `config.data.train` names: a source, or a folder of images."""

import pkgutil
from pathlib import Path

from mae_jax.data import sources
from mae_jax.spec import nearest, parse
from mae_jax.types import UserError


def source_spec(text: str, where: str) -> str:
    """The spec string of a source: a folder that exists, 'photos', becomes "folder('photos')". What
    is the name of a source stays one.

    Args:
        text: as the user wrote it.
        where: which setting it is, for messages.

    Raises:
        UserError: neither a source nor a folder.
    """
    known = [found.name for found in pkgutil.iter_modules(sources.__path__)]
    try:
        calls = parse(text)
    except UserError:
        calls = []  # e.g. '/data/photos'
    if any(call.name in known for call in calls):
        return text
    folder = Path(text).expanduser()
    try:
        is_folder, is_file = folder.is_dir(), folder.is_file()
    except OSError as error:
        raise UserError(f"{where}={text}: {error.strerror}") from error
    if is_folder:
        return f"folder({text!r})"
    if is_file:
        raise UserError(
            f"{where}={text} is a file: name a folder of images, or a source that reads this file, "
            f"such as array_file({text!r})"
        )
    if "(" in text:
        return text  # the spec language says what is wrong
    raise UserError(
        f"{where}={text}: there is no folder of that name here (that would be folder({text!r})), "
        f"and no source{nearest(text, known)}"
    )
