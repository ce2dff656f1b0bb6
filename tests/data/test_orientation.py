"""Which way up images, their masks and their boxes are: against Pillow's `exif_transpose`."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from mae_jax.data.images import BadImage, Encoded, decode_mask
from mae_jax.data.orientation import turned, turned_boxes
from mae_jax.data.sources import folder, tiff
from mae_jax.types import UserError

TURNS = range(1, 9)
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def exif_of(turn):
    """Exif that holds an orientation."""
    exif = Image.Exif()
    exif[0x0112] = turn
    return exif


def file_of(name, turn, pixels=PIXELS, **options):
    """The bytes of an image file that asks to be turned."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, name, exif=exif_of(turn), **options)
    return file.getvalue()


def transposed(pixels, turn):
    """What Pillow's own function makes of an array stored this way."""
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = turn
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("turn", TURNS)
def test_every_orientation_of_every_format_that_has_one(turn):
    expected = transposed(PIXELS, turn)
    for name, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        found = Encoded(file_of(name, turn, **options))
        assert (found.orientation, found.shape) == (turn, expected.shape[:2])
        np.testing.assert_array_equal(found.pixels(), expected)
    data = file_of("JPEG", turn)
    stored = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(Encoded(data).pixels(), transposed(stored, turn))
    if "AVIF" in Image.SAVE:
        found = Encoded(file_of("AVIF", turn, quality=100, subsampling="4:4:4")).pixels()
        assert np.abs(found.astype(int) - expected).max() < 12


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("order", "<>")
def test_tiff_files_of_16_bits(tmp_path, turn, order):
    """Pillow turns TIFF files itself while it loads them: they must not be turned twice."""
    tifffile = pytest.importorskip("tifffile")
    values = np.random.default_rng(1).integers(0, 65536, (5, 7), np.uint16)
    path = tmp_path / "1.tif"
    for compression in (None, "zlib"):
        tifffile.imwrite(
            path, values, byteorder=order, compression=compression,
            photometric="minisblack", extratags=[(274, "H", 1, turn, True)],
        )  # fmt: skip
        expected = transposed(values.astype(np.int32), turn) / 257
        for source in (
            folder.make(str(tmp_path), channels=1),
            tiff.make(str(tmp_path), window=(0, 65535)),
        ):
            image = source.read([0])["image"][0]
            pixels = image.pixels() if isinstance(image, Encoded) else image
            assert pixels.shape == (*expected.shape, 1)
            assert np.abs(pixels[:, :, 0] - expected).max() < 0.51


def with_segment(data, marker, content):
    """A JPEG with one more segment before all others."""
    length = (len(content) + 2).to_bytes(2, "big")
    return data[:2] + b"\xff" + bytes([marker]) + length + content + data[2:]


SCAN = b"\xff\xd8\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00 a thumbnail \xff\xd9"


@pytest.mark.parametrize(
    ("marker", "content"),
    [
        (0xED, b"Photoshop 3.0\x008BIM\x04\x0c\0\0\0\0\0\x20" + SCAN + bytes(12)),
        (0xE0, b"JFXX\0\x10" + SCAN),
        (0xE2, b"ICC_PROFILE\0\x01\x01" + SCAN),
        (0xFE, b"a comment " + SCAN),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>\xff\xda</x:xmpmeta>"),
        (0xEF, b"Exif\0\0 not here\xff\xda"),
    ],
)
def test_exif_is_found_behind_other_segments(marker, content):
    data = with_segment(file_of("JPEG", 6), marker, content)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert expected.shape == (7, 5, 3), "Pillow finds it"
    np.testing.assert_array_equal(Encoded(data).pixels(), expected)
    plain = with_segment(file_of("JPEG", 1), marker, content)
    assert Encoded(plain).orientation == 1 and Encoded(plain).pixels().shape == (5, 7, 3)


def test_fill_bytes_and_junk_are_no_segments():
    data = file_of("JPEG", 3)
    filled = data[:2] + b"\xff\xff\xff" + data[3:]
    np.testing.assert_array_equal(Encoded(filled).pixels(), Encoded(data).pixels())
    assert Encoded(filled).orientation == 3
    junk = data[:2] + b"\xff\xfe\x00\x04ab" + b"\x00\x01\x02" + data[2:]
    np.testing.assert_array_equal(Encoded(junk).pixels(), Encoded(data).pixels())


def test_xmp_may_name_the_orientation():
    file = io.BytesIO()
    xmp = b'<x:xmpmeta tiff:Orientation="8"/>'
    Image.fromarray(PIXELS).save(file, "JPEG", xmp=xmp)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    assert expected.shape == (7, 5, 3)
    np.testing.assert_array_equal(Encoded(file.getvalue()).pixels(), expected)


@pytest.mark.parametrize("turn", TURNS)
def test_arrays_and_boxes_turn_as_images_do(turn):
    numbers = np.arange(5 * 7, dtype=np.uint8).reshape(5, 7)
    np.testing.assert_array_equal(turned(numbers, turn), transposed(numbers, turn))
    marked = np.zeros((10, 20), np.uint8)
    marked[1:4, 12:20] = 1
    boxes = np.array([[0.1, 0.6, 0.4, 1.0], [0, 0, 0, 0]], np.float32)
    upright = transposed(marked, turn)
    rows, columns = np.nonzero(upright)
    ends = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    found = turned_boxes(boxes, turn)
    np.testing.assert_allclose(found[0], np.divide(ends, upright.shape * 2), atol=1e-6)
    assert (found[1] == 0).all(), "no box stays none"


def annotated(root, turn, *, as_stored):
    """An image with a mask and a box of its red square, in folders."""
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[1:4, 6:12, 0] = 255
    mask = (pixels[:, :, 0] > 0).astype(np.uint8)
    mask = mask if as_stored else transposed(mask, turn)
    for name in ("images", "masks", "boxes"):
        (root / name).mkdir(exist_ok=True)
    (root / "images" / "1.png").write_bytes(file_of("PNG", turn, pixels))
    Image.fromarray(mask).save(root / "masks" / "1.png")
    rows, columns = np.nonzero(mask)
    top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
    y, x = (top + bottom) / 2 / mask.shape[0], (left + right) / 2 / mask.shape[1]
    height, width = (bottom - top) / mask.shape[0], (right - left) / mask.shape[1]
    (root / "boxes" / "1.txt").write_text(f"0 {x} {y} {width} {height}\n")
    return dict(path=str(root / "images"), masks=str(root / "masks"), boxes=str(root / "boxes"))


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("convention", ["upright", "stored"])
def test_masks_and_boxes_belong_to_the_image_that_is_named(tmp_path, turn, convention):
    options = annotated(tmp_path, turn, as_stored=convention == "stored")
    source = folder.make(**options, annotated=convention)
    row = source.read([0])
    red = row["image"][0].pixels()[:, :, 0] > 0
    np.testing.assert_array_equal(row["segmentation"][0], red)
    top, left, bottom, right = row["box"][0][0] * [*red.shape, *red.shape]
    inside = np.zeros_like(red)
    inside[round(top) : round(bottom), round(left) : round(right)] = True
    np.testing.assert_array_equal(inside, red)
    assert any(f"(annotated={convention})" in note for note in source.notes)


def test_a_mask_of_the_other_image_is_refused(tmp_path):
    source = folder.make(**annotated(tmp_path, 6, as_stored=True))
    with pytest.raises(BadImage, match="1.png is 12 x 8, the image 8 x 12.* annotated=stored"):
        source.read([0])


def test_a_mask_is_turned_by_its_own_orientation():
    numbers = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(decode_mask(file_of("PNG", 6, numbers)), np.rot90(numbers, -1))


def test_the_convention_needs_something_that_it_is_for(tmp_path):
    for options, message in (
        ({"annotated": "stored"}, "annotated needs masks or boxes: give one of them"),
        ({"annotated": "turned"}, "annotated 'turned' is unknown: choose upright, stored"),
    ):
        with pytest.raises(UserError, match=message):
            folder.make(str(tmp_path), **options)
