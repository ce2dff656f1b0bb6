"""Checks of folders that are to be written to, before anything else is done."""

import os
from pathlib import Path

from mae_jax.errors import UserError


def check_place(folder: Path, option: str) -> None:
    """Raises UserError if a folder cannot be created or written to.

    Args:
        folder: the folder, which need not exist.
        option: of the command line, for messages.
    """
    for path in (folder, *folder.absolute().parents):
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue  # what is there instead is further up
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
            raise UserError(f"{option} {folder}: {path} may not be written to: use another")
        return
