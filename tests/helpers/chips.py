"""Stand-ins for the devices of TPU slices: all of a device that placing it in a mesh reads."""

import itertools
import math


class Chip:
    """A device, or one of several cores of a chip that are devices each."""

    platform = "tpu"

    def __init__(self, number, kind, coords, core, slice_index):
        self.id, self.device_kind = number, kind
        self.coords, self.core_on_chip, self.slice_index = coords, core, slice_index
        self.process_index = number // 4

    @property
    def place(self):
        """Where it is in its slice."""
        return (*self.coords, self.core_on_chip)


def chips(kind, shape, *, cores=1, slices=1):
    """The devices of slices of a shape, (x, y, z), in the order of `jax.devices()`."""
    places = [place[::-1] for place in itertools.product(*map(range, shape[::-1]))]
    every = itertools.product(range(slices), places, range(cores))
    return [Chip(i, kind, place, core, part) for i, (part, place, core) in enumerate(every)]


def box(devices):
    """How many devices fit in the smallest box around these."""
    sides = zip(*(device.place for device in devices), strict=True)
    return math.prod(max(side) - min(side) + 1 for side in sides)
