"""Grids of windows: they cover every voxel, and lead back to it."""

import numpy as np
import pytest

from mae_jax.data import make_data
from mae_jax.data.images import BadImage
from mae_jax.data.sources import Source, windows
from mae_jax.data.sources.windows import Windows, starts
from mae_jax.types import UserError

RNG = np.random.default_rng(0)


class Ragged(Source):
    """Volumes of different shapes, the last one damaged."""

    names = {"label": ("a", "b")}
    digest = "1"

    def __init__(self):
        shapes = [(9, 7, 5), (4, 4, 4), (3, 8, 5)]
        self.volumes = [RNG.integers(0, 256, (*s, 1)).astype(np.uint8) for s in shapes]
        self.num_examples = 4

    def read(self, indices):
        """Raises BadImage for the last one."""
        if 3 in indices:
            raise BadImage("it is cut off")
        images = [self.volumes[i] for i in indices]
        labels = [image[..., 0].astype(np.int32) % 7 for image in images]
        return {"image": images, "segmentation": labels, "label": [i % 2 for i in indices]}

    def name(self, index):
        """A letter."""
        return "abcd"[index]

    def labels(self):
        """[4]"""
        return np.array([0, 1, 0, 1], np.int32)


def test_starts_are_even_and_reach_both_ends():
    for side in (4, 9, 64, 100):
        for size in (1, 4, 7, 64):
            for overlap in (0, 0.25, 0.5):
                found = starts(side, size, overlap)
                steps = np.diff(found)
                assert found[0] == 0 and found[-1] == max(0, side - size)
                assert len(found) == 1 or 1 <= steps.min() <= steps.max() <= max(
                    1, int(size * (1 - overlap))
                )
                assert len(found) == 1 or np.ptp(steps) <= 1
    assert starts(10, 4, 0) == [0, 3, 6] and starts(8, 4, 0) == [0, 4]


@pytest.mark.parametrize("overlap", [0, 0.5])
def test_windows_cover_every_voxel(overlap):
    source = Windows(Ragged(), (4, 4, 4), overlap)
    covered = [np.zeros(one.shape[:3], int) for one in source.source.volumes]
    for index in range(source.num_examples - 1):
        example, box = source.window(index)
        row = {name: values[0] for name, values in source.read([index]).items()}
        exact = source.source.volumes[example][box]
        np.testing.assert_array_equal(row["image"], exact)
        np.testing.assert_array_equal(row["segmentation"], exact[..., 0] % 7)
        assert row["label"] == example % 2 == source.labels()[index]
        covered[example][box] += 1
        text = ", ".join(f"{b.start}:{b.stop}" for b in box)
        assert source.name(index) == f"{'abc'[example]}[{text}]"
        assert source.group(index) == "abc"[example] and source.groups()[index] == example
    assert all(one.min() >= 1 for one in covered)
    counts = np.bincount(source.groups())
    assert counts.tolist() == ([3 * 2 * 2, 1, 2 * 2, 1] if not overlap else [4 * 3 * 2, 1, 6, 1])
    with pytest.raises(BadImage, match="it is cut off"):
        source.read([source.num_examples - 1])
    assert source.damaged == ["d: it is cut off"] and source.name(source.num_examples - 1) == "d"


def test_a_spec_of_a_spec(tmp_path):
    np.save(tmp_path / "v.npy", RNG.integers(0, 256, (2, 9, 7, 5, 1)).astype(np.uint8))
    inner = f'array_file("{tmp_path / "v.npy"}", rank=3)'
    data = make_data(
        train=f"windows({inner!r}, (4, 4, 4), overlap=0.5)",
        batch_size=4,
        held_out=0.5,
        train_transform="",
        eval_transform="",
    )
    assert data.source("train").num_examples == data.source("val").num_examples == 24
    assert next(data.train(0))["image"].shape == (4, 4, 4, 4, 1)
    for options, message in (
        (dict(size=(4, 4)), "windows: size .4, 4. has 2 numbers, and v.npy.0. has 3 axes"),
        (dict(size=(4, 4, 4), overlap=1), "windows: overlap 1 should be a share"),
    ):
        with pytest.raises(UserError, match=message):
            windows.make(inner, **options)
