"""Groups of examples, such as the images of a patient, that stay on one side of a split."""

import numpy as np

from mae_jax.data.classes import shortened
from mae_jax.data.files import number
from mae_jax.data.names import printable
from mae_jax.data.random import hash_words
from mae_jax.data.sources import Source
from mae_jax.types import UserError

_EXACT = 256  # groups whose subsets are searched for the best sum


def pick_groups(
    groups: np.ndarray, share: float, *, strata: np.ndarray | None, stream: int
) -> np.ndarray:
    """Random groups with a share of all examples, as near to it as whole groups get: [n] int64,
    the indices of their examples, ascending.

    The strata are filled one after another, each up to the share of the examples so far. A group
    with examples of several strata counts for that of most of them.

    Args:
        groups: [N] int, group of each example.
        share: share of the examples, in (0, 1).
        strata: [N] int from 0, such as classes, of each of which a share is picked; None: one.
        stream: number of the random stream.
    """
    names, groups, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    of = np.zeros(len(names), np.int64)
    if strata is not None:
        width = int(strata.max()) + 1
        pairs, counts = np.unique(groups * np.int64(width) + strata, return_counts=True)
        order = np.lexsort((-pairs, counts))  # the last of a group is its most common stratum
        of[pairs[order] // width] = pairs[order] % width
    shuffled = np.argsort(hash_words(stream, names), kind="stable")
    chosen, wanted, held = np.zeros(len(names), bool), 0.0, 0
    for stratum in np.unique(of):
        members = shuffled[of[shuffled] == stratum]
        wanted += share * int(sizes[members].sum())
        members = members[nearest_sum(sizes[members], max(0, round(wanted) - held))]
        chosen[members] = True
        held += int(sizes[members].sum())
    return np.flatnonzero(chosen[groups])


def nearest_sum(sizes: np.ndarray, target: int) -> np.ndarray:
    """Indices of a subset whose sum is nearest to a target, early ones first: exact for up to 256
    sizes. Of more, all but the last 256 are taken in order where they fit.

    Args:
        sizes: [n] int, 1 or more.
        target: 0 or more.
    """
    taken, left, first = [], target, max(0, len(sizes) - _EXACT)
    for place, size in enumerate(sizes[:first].tolist()):
        if size <= left:
            taken.append(place)
            left -= size
    tail = sizes[first:].tolist()
    limit = 2 * left + 1  # taking nothing is nearer than more
    sums = [1]  # bit s of sums[i]: the last i sizes have a subset of the sum s
    for size in reversed(tail):
        sums.append((sums[-1] | sums[-1] << size) & ((1 << limit) - 1))
    reached = max(
        (s for gap in range(left + 1) for s in (left - gap, left + gap) if sums[-1] >> s & 1),
        key=lambda s: (-abs(s - left), -s),
    )
    for place, size in enumerate(tail):
        if reached >= size and sums[len(tail) - place - 1] >> (reached - size) & 1:
            taken.append(first + place)
            reached -= size
    return np.array(taken, np.int64)


def check_groups(train: Source, test: Source) -> None:
    """Raises UserError if a group of the training set is in the test set, too.

    Args:
        train, test: sources; those without names of groups pass.
    """
    ours, theirs = train.group_names, test.group_names
    if not ours or not theirs:
        return
    used = {ours[i] for i in np.unique(train.groups())}
    others = (theirs[i] for i in np.unique(test.groups()))
    if shared := [name for name in others if name in used]:
        raise UserError(
            f"config.data.train and config.data.test share {number(len(shared), 'group')}: "
            f"{shortened(list(map(printable, shared)))}; split the table by groups, or leave group "
            "out of the former if its groups may be in both"
        )
