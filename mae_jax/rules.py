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


def layer_rules(depth: int, layer_decay: float, trainable: int | str) -> Rules:
    """Rules of layer decay, (regex, (learning rate factor, weight decay factor) or None if frozen).

    The learning rate factor of block i is layer_decay ** (depth - i), of the layers before the
    first block layer_decay ** (depth + 1), and of those after the last block 1. The downsampling
    layer in front of a convolutional block has the factor of this block. Weight decay does not
    apply to biases, norms, positions and class tokens.

    Args:
        depth: number of blocks of the encoder.
        layer_decay: ratio of the learning rates of consecutive blocks, in (0, 1].
        trainable: 'all'; a number of last blocks; or 'mlp', the MLP of the last block and its norm.
            The head and the norms after the last block are always trained.
    """
    count = depth if trainable == "all" else 0 if trainable == "mlp" else trainable
    first = layer_decay ** (depth + 1)
    rules: list[tuple[str, tuple[float, float] | None]] = []

    def group(pattern: str, factor: float, trained: bool) -> None:
        if trained:
            rules.append((rf"{pattern}.*(bias|scale)$", (factor, 0.0)))
        rules.append((pattern, (factor, 1.0) if trained else None))

    if trainable == "mlp":
        group(rf"^encoder/block_{depth - 1}/(mlp|norm2)/", layer_decay, True)
    tokens = r"^encoder/(cls_token|positions(_time|_space|_class)?)$"
    rules.append((tokens, (first, 0.0) if trainable == "all" else None))
    group(r"^encoder/embed", first, trainable == "all")
    for i in range(depth):
        group(rf"^encoder/(block|down)_{i}/", layer_decay ** (depth - i), i >= depth - count)
    group("", 1.0, True)  # the rest: the final norms and the head
    return tuple(rules)
