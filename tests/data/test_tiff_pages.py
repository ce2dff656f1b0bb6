"""Which pages of a TIFF file are images: not the overviews and masks of others."""

import io
import os

import numpy as np
import pytest

from mae_jax.data.sources import tiff
from tests.data.test_medical import images_of, names_of, place

RNG = np.random.default_rng(0)


def write(path, scenes, *, overviews=2, mask=True, old=False):
    """A file with overviews and a mask behind each scene, in one chain of pages."""
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffWriter(path) as file:
        for scene in scenes:
            file.write(scene, photometric="minisblack")
            for level in range(1, 1 + overviews):
                kind = dict(extratags=[(255, "H", 1, 2, True)]) if old else dict(subfiletype=1)
                smaller = np.ascontiguousarray(scene[:: 2**level, :: 2**level])
                file.write(smaller, photometric="minisblack", **kind)
            if mask:
                file.write(scene > 99, photometric="minisblack", subfiletype=4)
                file.write(scene[::2, ::2] > 99, photometric="minisblack", subfiletype=5)


@pytest.mark.parametrize("old", [False, True])
def test_overviews_and_masks_are_no_examples(tmp_path, old):
    scenes = RNG.integers(0, 256, (3, 16, 24), np.uint8)
    write(place(tmp_path, "a.tif"), scenes[:2], old=old)
    write(place(tmp_path, "b.tif"), scenes[2:], old=old)
    source = tiff.make(str(tmp_path))
    assert names_of(source) == ["a.tif[0]", "a.tif[1]", "b.tif"]
    np.testing.assert_array_equal(np.stack(images_of(source))[..., 0], scenes)
    assert source.notes == ("left out 12 pages that are overviews or masks",)
    as_channels = tiff.make(str(tmp_path), pages="channels")
    np.testing.assert_array_equal(images_of(as_channels)[0], np.moveaxis(scenes[:2], 0, 2))


def test_pyramids_below_a_page_are_no_examples(tmp_path):
    """SubIFDs, as OME-TIFF has them."""
    tifffile = pytest.importorskip("tifffile")
    scenes = RNG.integers(0, 256, (2, 32, 32), np.uint8)
    with tifffile.TiffWriter(tmp_path / "1.ome.tif", ome=True) as file:
        file.write(scenes, subifds=1, photometric="minisblack", metadata={"axes": "ZYX"})
        file.write(scenes[:, ::2, ::2], subfiletype=1, photometric="minisblack")
    source = tiff.make(str(tmp_path))
    np.testing.assert_array_equal(np.stack(images_of(source))[..., 0], scenes)
    assert source.notes == ()


def test_a_file_of_overviews_alone_is_read(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    values = RNG.integers(0, 256, (5, 6), np.uint8)
    tifffile.imwrite(tmp_path / "1.tif", values, subfiletype=1, photometric="minisblack")
    np.testing.assert_array_equal(images_of(tiff.make(str(tmp_path)))[0][..., 0], values)


def test_a_page_that_others_follow_is_a_page(tmp_path):
    """NewSubfileType 2."""
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for _ in range(3):
            values = RNG.integers(0, 256, (5, 6), np.uint8)
            writer.write(values, subfiletype=2, photometric="minisblack")
    (tmp_path / "1.tif").write_bytes(file.getvalue())
    assert tiff.make(str(tmp_path)).num_examples == 3


def test_a_file_that_has_changed_is_looked_at_again(tmp_path):
    path = tmp_path / "1.tif"
    for number in range(2):
        scenes = RNG.integers(0, 256, (2, 8, 8), np.uint8)
        write(path, scenes, overviews=1 + number)
        os.utime(path, ns=(number, number))
        source = tiff.make(str(tmp_path))
        np.testing.assert_array_equal(np.stack(images_of(source))[..., 0], scenes)
