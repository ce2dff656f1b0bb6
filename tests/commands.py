"""`tests.helpers.commands` under its old name."""

from tests.helpers.commands import mistake, run  # noqa: F401
