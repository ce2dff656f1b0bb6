"""Ordered (regex, value) rules over the paths of a pytree, for sharding, optimizer groups and
checkpoint loading. A path looks like 'encoder/block_0/mlp/fc1/kernel'.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax

from mae_jax.errors import UserError

Rules = Sequence[tuple[str, Any]]

DECAY_MATRICES: Rules = ((r"(bias|scale)$", (1.0, 0.0)), (r"", (1.0, 1.0)))
"""(learning rate factor, weight decay factor) of the official MAE pre-training: matrices and tokens
are decayed, biases and norms are not."""


def path_of(key_path: tuple) -> str:
    """A key path of `jax.tree_util` as 'a/b/c'."""
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def match(rules: Rules, path: str) -> Any:
    """Returns the value of the first rule whose regex matches anywhere in the path.

    Raises:
        UserError: no rule matches.
    """
    for pattern, value in rules:
        if re.search(pattern, path):
            return value
    raise UserError(f"no rule matches {path!r} among {[p for p, _ in rules]}: end with ('.*', ...)")


def map_rules(tree: Any, rules: Rules) -> Any:
    """Replaces each leaf of a tree by the value of the first rule that matches its path."""
    return jax.tree_util.tree_map_with_path(lambda path, _: match(rules, path_of(path)), tree)


def freeze(tree: Any, rules: Rules) -> Any:
    """Stops gradients at the leaves whose rule is None, so that the backward pass skips them."""

    def stop(path, leaf):
        return leaf if match(rules, path_of(path)) else jax.lax.stop_gradient(leaf)

    return jax.tree_util.tree_map_with_path(stop, tree)
