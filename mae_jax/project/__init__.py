"""`mae-jax init`: a folder with an experiment of the user's own, and a README, to edit."""

from pathlib import Path

from mae_jax.errors import UserError
from mae_jax.paths import check_place

TEMPLATE = Path(__file__).parent / "template"
"""The files that a new project has."""


def init(folder: Path) -> list[Path]:
    """Writes a new project into a folder, which is created if missing.

    Returns:
        The files written.

    Raises:
        UserError: one of the files is there already (then nothing is written), or the folder cannot
            be created.
    """
    check_place(folder, "init")
    texts = {folder / path.name: path.read_bytes() for path in sorted(TEMPLATE.glob("*.*"))}
    there = [str(path) for path in texts if path.exists() or path.is_symlink()]
    if there:
        raise UserError(
            f"init {folder}: nothing is overwritten, and there is already {' and '.join(there)}: "
            "name another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        path.write_bytes(text)
    return list(texts)
