"""Self-supervised methods, one pretext task per file, each with `make(**kwargs) -> Method`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mae_jax.extensions import check_made
from mae_jax.spec import call_section, maker
from mae_jax.types import Method


def make_method(*, name: str, args: Mapping[str, Any], total_steps: int = 1) -> Method:
    """Builds a method by name.

    Args:
        name: a method, 'mae'; a task, 'tasks.finetune'; or a user's module, 'my_project.method'.
        args: arguments of the module's `make`.
        total_steps: length of the run.

    Raises:
        UserError: an unknown module or invalid arguments.
    """
    make = maker(name, "methods", Method)
    method = check_made(call_section(make, args, "method.args"), Method, name)
    return replace(method, total_steps=total_steps)
