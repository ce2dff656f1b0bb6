"""Checks output paths before a command does any work."""

import os
from collections.abc import Sequence
from pathlib import Path

from mae_jax.errors import UserError


def check_place(folder: Path, option: str) -> None:
    """Raises UserError if a folder cannot be created or written to.

    Args:
        folder: the folder, which need not exist.
        option: name of the command-line option, for messages.
    """
    for path in (folder, *folder.absolute().parents):
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue  # look at its parent
        except OSError as error:
            raise UserError(f"{option} {folder}: {error.strerror}: use another") from error
        if path.is_symlink() and not path.exists():
            raise UserError(
                f"{option} {folder}: {path} is a link to {os.readlink(path)}, which does not "
                "exist: create that folder, or remove the link"
            )
        if not path.is_dir():
            raise UserError(f"{option} {folder}: {path} is a file: name a folder")
        if not os.access(path, os.W_OK | os.X_OK):
            raise UserError(f"{option} {folder}: no permission to write in {path}: use another")
        return


def check_empty(folder: Path, option: str) -> None:
    """Raises UserError if a folder has files already, or cannot be created or written to.

    Args:
        folder, option: see `check_place`.
    """
    check_place(folder, option)
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{option} {folder}: there are files in it already: name another folder")


def check_file(path: Path, option: str, endings: Sequence[str] = ()) -> None:
    """Raises UserError if a file cannot be written.

    Args:
        path: the file, whose folder need not exist.
        option: name of the command-line option, for messages.
        endings: allowed suffixes; empty: any.
    """
    if endings and path.suffix not in endings:
        raise UserError(f"{option} {path}: the name must end in {' or '.join(endings)}")
    if path.is_dir():
        raise UserError(f"{option} {path}: this is a folder: name a file")
    check_place(path.parent, option)
