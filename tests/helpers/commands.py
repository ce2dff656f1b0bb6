"""Commands as people type them, in this process."""

import pytest

from mae_jax import cli


def run(*arguments):
    """Exit code of a command in this process."""
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(argument) for argument in arguments])
    return exit_.value.code


def mistake(capsys, *arguments):
    """The one line that a mistake gives."""
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("mae-jax: ")]
    assert len(lines) == 1 and "Traceback" not in error, error
    return lines[0].removeprefix("mae-jax: ")
