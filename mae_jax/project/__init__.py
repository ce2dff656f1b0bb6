"""`mae-jax init`: a folder with an experiment of the user's own, and a README, to edit; and with
extensions, a file of each kind, to start from.
"""

from pathlib import Path

from mae_jax.errors import UserError
from mae_jax.paths import check_place

TEMPLATE = Path(__file__).parent / "template"
"""The files that a new project has."""
EXTENSIONS = Path(__file__).parent / "extensions"
"""Those of extensions: an experiment, and a package of modules that it names."""


def init(folder: Path, *, extensions: bool = False) -> list[Path]:
    """Writes a new project into a folder, which is created if missing.

    Args:
        extensions: write those instead.

    Returns:
        The files written.

    Raises:
        UserError: one of the files is there already (then nothing is written), or the folder cannot
            be created.
    """
    check_place(folder, "init")
    source = EXTENSIONS if extensions else TEMPLATE
    files = [path for path in sorted(source.rglob("*.*")) if path.suffix != ".pyc"]
    texts = {folder / path.relative_to(source): path.read_bytes() for path in files}
    there = [str(path) for path in texts if path.exists() or path.is_symlink()]
    if there:
        raise UserError(
            f"init {folder}: nothing is overwritten, and there is already {' and '.join(there)}: "
            "name another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text)
    return list(texts)
