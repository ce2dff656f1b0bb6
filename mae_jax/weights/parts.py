"""Selects the arrays of the model in a file. Files nest them ({'state_dict': ...}, {'student',
'teacher'}) and prefix their names ('module.', 'backbone.', 'module.base_encoder.').

A key is the dotted path to a set of weights, first through the nested dictionaries and then through
the names: 'state_dict.module.base_encoder'. The only set in a file is found automatically; of
several, the user selects one.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mae_jax.types import UserError
from mae_jax.weights import layouts

TOP = "."
"""The key of arrays whose names have no prefix."""

DEPTH = 8
"""Maximum depth of nested dictionaries, as dictionaries in a file may contain each other."""

WRAPPERS = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Prefixes that PyTorch's compiler and wrappers insert anywhere into names."""

Groups = Mapping[str, Mapping[str, Any]]
"""Path of a dictionary -> name -> array, without arrays in nested dictionaries."""

FAMILIES = (
    (r"lora_[AB]|^base_model\.", "a LoRA adapter (merge it into its model with merge_and_unload)"),
    (r"(^|\.)vision_model\.", "CLIP or SigLIP"),
    (r"(^|\.)text_model\.", "CLIP or SigLIP without the tower of images"),
    (r"(^|\.)visual\.", "CLIP in the file of OpenAI or OpenCLIP (pass its folder of Hugging Face)"),
    (r"patch_embed\.proj\.0\.", "a transformer with a convolutional stem"),
    (r"(^|\.)layer1\.0\.conv1", "a ResNet"),
    (r"(^|\.)(stages|downsample_layers)\.\d", "a ConvNeXt or another network in stages"),
    (r"(^|\.)layers\.\d+\.blocks", "a Swin transformer"),
)
"""Regex of array names -> the network that has them."""


class Part(NamedTuple):
    """One set of weights in a file."""

    key: str
    """'': the whole file."""
    arrays: dict[str, Any]
    """Name without the prefix -> array."""
    beside: list[str]
    """Full names of other arrays in the same dictionary, with another prefix."""


def groups_of(content: Any, is_array: Callable[[Any], bool]) -> dict[str, dict[str, Any]]:
    """The arrays in nested dictionaries and lists, grouped by the path of their dictionary."""
    groups: dict[str, dict[str, Any]] = {}

    def visit(path: str, node: Any, depth: int) -> None:
        if depth > DEPTH or not isinstance(node, (Mapping, list, tuple)):
            return
        for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
            if is_array(value):
                groups.setdefault(path, {})[str(key)] = value
            else:
                visit(_joined(path, str(key)), value, depth + 1)

    visit("", content, 1)
    return groups


def part_of(groups: Groups, key: str | None, name: str, layout: str | None) -> Part:
    """Selects the set of weights with a key; None: the only set.

    Args:
        groups: the contents of a file, see `groups_of`.
        name: of the file, for messages.
        layout: see `layouts.tables`.

    Raises:
        UserError: there is no set with this key, no set, or several sets and no key.
    """
    groups = {path: _unwrapped(group, name) for path, group in groups.items()}
    no_prefix = key in (None, TOP)
    roots = _roots(groups if no_prefix else {"": _under(groups, key)}, layout)
    if key == TOP:
        roots = {root: group for root, group in roots.items() if root == ("", "")}
    if key is not None and not roots:
        raise UserError(f"{name} has no weights under --key {key}{_choose(_roots(groups, layout))}")
    if not roots:
        raise other_model(name, [n for group in groups.values() for n in group], layout)
    if len(roots) > 1:
        within = "" if key is None else f" under --key {key}"
        listed = {_joined(key or "", full): count for full, count in _counted(roots).items()}
        sets = ", ".join(f"{full or TOP} ({count} arrays)" for full, count in listed.items())
        example = next(full for full in listed if full)
        raise UserError(
            f"{name} holds {len(roots)} sets of weights{within}, {sets}: select one, "
            f"mae-jax weights import {name} --key {example}"
        )
    (path, prefix), group = next(iter(roots.items()))
    arrays = {n.removeprefix(prefix): a for n, a in group.items() if n.startswith(prefix)}
    beside = [_joined(path, n) for n in group if not n.startswith(prefix)]
    start = "" if no_prefix else key
    return Part(_joined(start, _joined(path, prefix.rstrip("."))), arrays, beside)


def other_model(name: str, names: list[str], layout: str | None) -> UserError:
    """The error for weights of a network that is not supported."""
    if not names:
        return UserError(f"{name} holds no named weights")
    families = [what for regex, what in FAMILIES if any(re.search(regex, n) for n in names)]
    what = f", it looks like {families[0]}" if families else ""
    known = layout or "; ".join(layouts.find(each).networks for each in layouts.names())
    return UserError(
        f"{name} holds another model{what}: its arrays ({', '.join(sorted(names)[:3])}, ...) do "
        f"not match the layout of {known}"
    )


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


def _unwrapped(group: Mapping[str, Any], name: str) -> dict[str, Any]:
    plain = {WRAPPERS.sub("", n): array for n, array in group.items()}
    if len(plain) < len(group):
        raise UserError(f"{name} has arrays whose names differ only in a wrapper's prefix")
    return plain


def _under(groups: Groups, key: str) -> dict[str, Any]:
    start = f"{key}."
    full = {_joined(path, n): a for path, group in groups.items() for n, a in group.items()}
    return {n.removeprefix(start): array for n, array in full.items() if n.startswith(start)}


def _roots(groups: Groups, layout: str | None) -> dict[tuple[str, str], Mapping[str, Any]]:
    """(path, prefix) of each set of weights -> its dictionary. A set is found by its patch
    embedding, which it has once, after its prefix.
    """
    rows = [row for _, table in layouts.tables(layout) for row in table]
    known = [re.escape(row.theirs[0]) for row in rows if row.ours == "encoder/embed/kernel"]
    landmark = re.compile(rf"((?:.*?\.)??)(?:{'|'.join(known)})")
    return {
        (path, match[1]): group
        for path, group in groups.items()
        for n in group
        if (match := landmark.fullmatch(n))
    }


def _counted(roots: Mapping) -> dict[str, int]:
    """Key of each set of weights -> number of its arrays."""
    others = lambda root: tuple(p for path, p in roots if path == root[0] and len(p) > len(root[1]))
    return {
        _joined(root[0], root[1].rstrip(".")): sum(
            n.startswith(root[1]) and not n.startswith(others(root)) for n in group
        )
        for root, group in roots.items()
    }


def _choose(roots: Mapping) -> str:
    return f": choose {', '.join(key or TOP for key in _counted(roots))}" if roots else ""
