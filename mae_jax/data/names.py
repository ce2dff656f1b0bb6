"""Names of classes: which look the same and are not, which are the same and do not look it, and
which a prepared data set cannot hold.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from mae_jax.types import UserError


def composed(name: str) -> str:
    """The name in one of the forms of Unicode, NFC: macOS writes accents as letters of their own,
    other systems do not.
    """
    return unicodedata.normalize("NFC", name)


def printable(name: str) -> str:
    """A name for messages: quoted if it holds what a terminal does not show."""
    return name if name.isprintable() and name.strip() == name else repr(name)


def look_alikes(names: Sequence[str]) -> Iterator[str]:
    """A line for classes that could be one, and are not: 'cat' and 'Cat', 'cat' and 'cat '."""
    groups = _groups(names, lambda name: " ".join(composed(name).casefold().split()))
    for group in groups:
        yield f"classes of their own, though their names look the same: {', '.join(group)}"


def check_for_labels_file(names: Sequence[str]) -> None:
    """Checks that a prepared set can hold these classes: TFDS keeps their names as the lines of a
    text file in UTF-8, without the blanks around them.

    Raises:
        UserError: it would lose or change a name, and shift the labels of all that follow.
    """
    reasons = {
        "is not UTF-8": lambda name: not _is_utf8(name),
        "holds a line break": lambda name: "\n" in name or "\r" in name,
        "is nothing but blanks": lambda name: not name.strip(),
        "starts or ends with a blank": lambda name: name.strip() != name,
    }
    for reason, is_so in reasons.items():
        if wrong := [name for name in names if is_so(name)]:
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
    """Names with the same key, as Python writes them; in ASCII if they differ in form only."""
    groups = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    for group in groups.values():
        if len(group) > 1:
            same = len({composed(name) for name in group}) < len(group)
            yield [ascii(name) if same else repr(name) for name in group]
