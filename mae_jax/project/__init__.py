"""`mae-jax init`: writes a new project, an experiment and a README to edit; with `--extensions`,
writes an example of each kind of extension.
"""

from pathlib import Path

from mae_jax.errors import UserError
from mae_jax.paths import check_place

TEMPLATE = Path(__file__).parent / "template"
"""The files of a new project."""
EXTENSIONS = Path(__file__).parent / "extensions"
"""Example extensions: an experiment, and the package of modules that it names."""


def init(folder: Path, *, extensions: bool = False) -> list[Path]:
    """Writes a new project into a folder, which is created if missing.

    Args:
        extensions: write the example extensions instead of the template.

    Returns:
        The files written.

    Raises:
        UserError: one of the files exists (then nothing is written), or the folder cannot be
            created.
    """
    check_place(folder, "init")
    source = EXTENSIONS if extensions else TEMPLATE
    files = [path for path in sorted(source.rglob("*.*")) if path.suffix != ".pyc"]
    texts = {folder / path.relative_to(source): path.read_bytes() for path in files}
    existing = [str(path) for path in texts if path.exists() or path.is_symlink()]
    if existing:
        raise UserError(
            f"init {folder}: would overwrite {' and '.join(existing)}: name another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text)
    return list(texts)
