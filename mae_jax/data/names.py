"""Class names: Unicode normalization, names that look alike, and names that a prepared data set
cannot hold.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from mae_jax.types import UserError


def composed(name: str) -> str:
    """Normalizes a name to Unicode NFC. macOS stores accents as separate code points (NFD)."""
    return unicodedata.normalize("NFC", name)


def printable(name: str) -> str:
    """A name for messages: quoted if it has outer blanks or characters that are not printable."""
    return name if name.isprintable() and name.strip() == name else repr(name)


def look_alikes(names: Sequence[str]) -> Iterator[str]:
    """A line for each group of separate classes with similar names: 'cat', 'Cat' and 'cat '."""
    groups = _groups(names, lambda name: " ".join(composed(name).casefold().split()))
    for group in groups:
        yield f"separate classes, though their names look the same: {', '.join(group)}"


def check_for_labels_file(names: Sequence[str]) -> None:
    """Checks that a prepared set can hold these class names. TFDS stores them as lines of a UTF-8
    file and strips the blanks around them.

    Raises:
        UserError: a name would be lost or changed, which would shift the labels after it.
    """
    reasons = {
        "is not UTF-8": lambda name: not _is_utf8(name),
        "holds a line break": lambda name: "\n" in name or "\r" in name,
        "is nothing but blanks": lambda name: not name.strip(),
        "starts or ends with a blank": lambda name: name.strip() != name,
    }
    for reason, applies in reasons.items():
        if wrong := [name for name in names if applies(name)]:
            raise UserError(
                f"the class {wrong[0]!r} {reason}, which a prepared data set cannot hold: rename "
                "its folder, or train on the folder itself"
            )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes of a file name that are not UTF-8
        return False
    return True


def _groups(names: Sequence[str], key: Callable[[str], str]) -> Iterator[list[str]]:
    """Groups of names with the same key, as reprs; in ASCII if they differ in NFC form only."""
    groups = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    for group in groups.values():
        if len(group) > 1:
            same = len({composed(name) for name in group}) < len(group)
            yield [ascii(name) if same else repr(name) for name in group]
