"""Images of more than 8 bits, by windows and without; and files with limits of their own."""

import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mae_jax.data import make_data
from mae_jax.data.images import BadImage, Encoded
from mae_jax.data.sources import folder
from mae_jax.types import UserError
from tests.data.test_images import png_of
from tests.data.test_transparency import png

RNG = np.random.default_rng(0)
LOW, HIGH = 300, 3300
COLOR = RNG.integers(0, 4096, (6, 7, 3)).astype(np.uint16)


def windowed(values, low=LOW, high=HIGH):
    """What a window means, in float64 and not rounded."""
    return np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255


def tiff_of(values, **options):
    """The bytes of a TIFF file."""
    file = io.BytesIO()
    pytest.importorskip("tifffile").imwrite(file, values, **options)
    return file.getvalue()


def ppm_of(values, highest):
    """The bytes of a PGM or PPM file of 16 bits."""
    kind = "P6" if values.ndim == 3 else "P5"
    header = f"{kind}\n# a comment\n{values.shape[1]} {values.shape[0]}\n{highest}\n".encode()
    return header + values.astype(">u2").tobytes()


def deep_files():
    """Name -> a file with the values of `COLOR`."""
    codecs = pytest.importorskip("imagecodecs")
    rows = [row.astype(">u2").tobytes() for row in COLOR]
    return {
        "PNG": png(16, 2, rows),
        "TIFF": tiff_of(COLOR, photometric="rgb"),
        "TIFF, planes": tiff_of(np.moveaxis(COLOR, 2, 0), photometric="rgb"),
        "TIFF, big-endian": tiff_of(COLOR, photometric="rgb", byteorder=">", compression="zlib"),
        "PPM": ppm_of(COLOR, 65535),
        "PPM of 12 bits": ppm_of(COLOR, 4095),
        "JPEG 2000": codecs.jpeg2k_encode(COLOR, level=0, reversible=True),
    }


def test_windows_apply_to_color():
    for name, data in deep_files().items():
        found = Encoded(data, 3, (LOW, HIGH)).pixels()
        assert np.abs(found - windowed(COLOR)).max() < 0.51, name
        assert Encoded(data, 1, (LOW, HIGH)).pixels().shape == (6, 7, 1), name
        alpha = Encoded(data, 4, (LOW, HIGH)).pixels()[..., 3]
        assert (alpha == 255).all(), name


def test_windows_apply_to_color_with_alpha():
    values = np.concatenate([COLOR, RNG.integers(0, 65536, (6, 7, 1))], axis=2).astype(np.uint16)
    share = values[..., 3:] / 65535
    exact = windowed(COLOR) * share + 255 * (1 - share)
    for data in (
        png(16, 6, [row.astype(">u2").tobytes() for row in values]),
        tiff_of(values, photometric="rgb", extrasamples=["unassalpha"]),
    ):
        assert np.abs(Encoded(data, 3, (LOW, HIGH)).pixels() - exact).max() < 1.5
    unspecified = tiff_of(values, photometric="rgb", extrasamples=["unspecified"])
    assert np.abs(Encoded(unspecified, 3, (LOW, HIGH)).pixels() - windowed(COLOR)).max() < 0.51


def test_color_of_10_bits_in_avif():
    codecs = pytest.importorskip("imagecodecs")
    values = np.full((8, 8, 3), 400, np.uint16)
    data = codecs.avif_encode(values, bitspersample=10, level=100)
    found = Encoded(data, 3, (300, 500)).pixels()
    assert np.abs(found.astype(int) - 128).max() < 4


def test_color_that_no_window_can_be_applied_to(monkeypatch):
    separated = tiff_of(np.zeros((4, 5, 4), np.uint16), photometric="separated")
    with pytest.raises(BadImage, match="uint16 values of the kind SEPARATED: leave window out"):
        Encoded(separated, 3, (0, 9)).pixels()
    text = b"P3 1 1 4095 1 2 3"
    with pytest.raises(BadImage, match="a text file .P3. of more than 8 bits a channel: leave"):
        Encoded(text, 3, (0, 9)).pixels()
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    data = png(16, 2, [row.astype(">u2").tobytes() for row in COLOR])
    with pytest.raises(BadImage, match="needs imagecodecs, .* pip install imagecodecs, or leave"):
        Encoded(data, 3, (0, 9)).pixels()


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("window", [None, (1000, 60000)])
def test_white_is_zero(compression, window):
    values = RNG.integers(0, 65536, (6, 7)).astype(np.uint16)
    data = tiff_of(values, photometric="miniswhite", compression=compression)
    exact = 255 - windowed(values, *(window or (0, 65535)))
    assert np.abs(Encoded(data, 1, window).pixels()[..., 0] - exact).max() < 0.51
    bytes_ = tiff_of((values >> 8).astype(np.uint8), photometric="miniswhite")
    np.testing.assert_array_equal(Encoded(bytes_, 1).pixels()[..., 0], 255 - (values >> 8))


def gray_files(values):
    """Name -> (file, highest value) of gray values of 12 bits that the file declares to be such."""
    codecs = pytest.importorskip("imagecodecs")
    return {
        "TIFF": (tiff_of(values, photometric="minisblack", bitspersample=12), 4095),
        "PGM": (ppm_of(values, 4095), 4095),
        "JPEG 2000": (
            codecs.jpeg2k_encode(values, bitspersample=12, level=0, reversible=True),
            4095,
        ),
        "PGM of 16 bits": (ppm_of(values, 65535), 65535),
    }


def test_declared_bits_are_the_range_and_windows_are_of_stored_values():
    values = COLOR[:, :, 0]
    for name, (data, highest) in gray_files(values).items():
        found = Encoded(data, 1).pixels()[..., 0]
        assert np.abs(found - values * (255 / highest)).max() < 0.51, name
        found = Encoded(data, 1, (LOW, HIGH)).pixels()[..., 0]
        assert np.abs(found - windowed(values)).max() < 0.51, name


def notes_of(path, **options):
    """What a folder reports."""
    return " | ".join(folder.make(str(path), **options).notes)


def test_dark_images_are_reported(tmp_path):
    Image.fromarray(COLOR[:, :, 0] | 2048).save(tmp_path / "1.png")
    bright = tmp_path / "2.png"
    Image.fromarray(COLOR[:, :, 0] * 16).save(bright)
    expected = (
        "1 of 2 images looked at have room for more than 8 bits, and use 12 at most: they are "
        "nearly black; give window=(0, 4095)"
    )
    assert notes_of(tmp_path) == expected
    assert notes_of(tmp_path, window=(0, 4095)) == ""
    bright.write_bytes(png(16, 2, [row.astype(">u2").tobytes() for row in COLOR]))
    assert notes_of(tmp_path) == expected.replace("1 of 2", "2 of 2")
    Image.fromarray(np.zeros((3, 3), np.uint16)).save(bright)
    assert notes_of(tmp_path) == expected, "black is black"


def test_windows_without_effect_are_reported(tmp_path):
    Image.new("L", (3, 3)).save(tmp_path / "1.png")
    note = "window=(0, 9) does not change images of 8 bits (1 of 1 images looked at are)"
    assert notes_of(tmp_path, window=(0, 9)) == note


@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_what_only_the_source_tiff_reads(dtype):
    values = np.zeros((4, 5) if dtype == np.float64 else (4, 5, 13), dtype)
    data = tiff_of(values, photometric="minisblack", planarconfig="contig")
    with pytest.raises(BadImage, match="a TIFF that Pillow does not read: .* the source tiff"):
        Encoded(data).pixels()


def test_pages_that_are_overviews_or_masks_are_passed_over():
    """A thumbnail may be the first page of a scanner's or a camera's file."""
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for kind in (1, 4, 5):
            values = np.ones((2, 2), bool if kind & 4 else np.uint8)
            writer.write(values, subfiletype=kind, photometric="minisblack")
        writer.write(np.full((8, 9), 77, np.uint8))
    assert Encoded(file.getvalue(), 1).shape == (8, 9)
    only = tiff_of(np.full((2, 3), 5, np.uint8), subfiletype=1)
    assert (Encoded(only, 1).pixels() == 5).all()


def large_texts(where):
    """A PNG with a profile or texts that are larger than Pillow accepts; its pixels."""
    pixels = RNG.integers(0, 256, (5, 7, 3), np.uint8)
    file, texts, options = io.BytesIO(), PngInfo(), {}
    exif = Image.Exif()
    exif[0x0112] = 6
    if where == "profile":
        options = {"icc_profile": bytes(3_000_000)}
    elif where == "many":
        for i in range(7):
            texts.add_text(f"key{i}", "x" * 100_000)
    else:
        texts.add_text("key", "x" * 3_000_000, zip=True)
    Image.fromarray(pixels).save(file, "PNG", pnginfo=texts, exif=exif, **options)
    return file.getvalue(), np.rot90(pixels, -1)


@pytest.mark.parametrize("where", ["profile", "text", "many", "behind"])
def test_profiles_and_texts_may_have_any_size(monkeypatch, where):
    monkeypatch.setattr("PIL.PngImagePlugin.MAX_TEXT_MEMORY", 500_000)
    data, expected = large_texts(where)
    if where == "behind":  # the pixels
        start = data.index(b"zTXt") - 4
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        data = data[:start] + data[end:-12] + data[start:end] + data[-12:]
    np.testing.assert_array_equal(Encoded(data).pixels(), expected)
    assert Encoded(data).orientation == 6


def test_the_limit_on_pixels_is_named_and_can_be_raised(tmp_path):
    path = tmp_path / "1.png"
    path.write_bytes(png_of(9_000, 20_000))
    data = lambda options="": make_data(
        train=f"folder({str(tmp_path)!r}{options})",
        batch_size=1,
        train_transform="",
        eval_transform="resize(4)",
    )
    with pytest.raises(UserError) as error:
        next(data().eval("train"))
    for part in ("1.png", "20000 x 9000 pixels", "limit of 178956970", "raise max_pixels"):
        assert part in str(error.value)
    Image.new("1", (60, 90)).save(path)
    with pytest.raises(UserError, match="60 x 90 pixels are over the limit of 5399 pixels"):
        next(data(", max_pixels=5399").eval("train"))
    assert next(data(", max_pixels=5400").eval("train"))["image"].shape == (1, 6, 4, 3)


@pytest.mark.parametrize("name", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_a_raised_limit_holds_for_every_reader(monkeypatch, name):
    """Some of Pillow's readers check the limit of the process."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    from mae_jax.data.reading import Reading

    file = io.BytesIO()
    Image.new("RGB", (80, 90)).save(file, name, exif=b"")
    monkeypatch.setattr("mae_jax.data.decoding.MAX_PIXELS", 2000)
    decoder = Reading("test", channels=3, window=None, background="white", max_pixels=7200)
    assert decoder(file.getvalue()).pixels().shape == (90, 80, 3)


def test_files_that_would_run_a_program_are_never_opened():
    """Whatever they are called: Pillow has Ghostscript interpret PostScript."""
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(BadImage, match="no image format that is known: it starts with b'%!PS"):
        Encoded(script).pixels()


def test_unsigned_integers_of_32_bits_are_not_read_as_signed():
    values = np.array([[0, 1000, 2**31 - 1, 2**31, 3_000_000_000, 2**32 - 1]], np.uint32)
    data = tiff_of(values, photometric="minisblack")
    found = Encoded(data, 1, (0, 2**32 - 1)).pixels()[..., 0]
    np.testing.assert_allclose(found, windowed(values, 0, 2**32 - 1), atol=0.51)


@pytest.mark.parametrize("order", "<>")
def test_signed_integers_keep_their_sign(order):
    values = np.array([[-3000, -1000, 0, 500, 32767]])
    for dtype in (np.int16, np.int32):
        data = tiff_of(values.astype(dtype), photometric="minisblack", byteorder=order)
        found = Encoded(data, 1, (-1000, 2000)).pixels()[..., 0]
        np.testing.assert_allclose(found, windowed(values, -1000, 2000), atol=0.51)
    data = tiff_of(np.array([[-100, 100]], np.int8), photometric="minisblack", byteorder=order)
    with pytest.raises(BadImage, match=r"signed values of 8 bits, .*tiff\(\.\.\.\)"):
        Encoded(data, 1).pixels()


def test_signed_values_of_jpeg_2000_keep_their_sign():
    codecs = pytest.importorskip("imagecodecs")
    values = RNG.integers(-2048, 2048, (6, 7)).astype(np.int16)
    data = codecs.jpeg2k_encode(values, level=0, reversible=True, codecformat="jp2")
    found = Encoded(data, 1, (-1000, 1000)).pixels()[..., 0]
    np.testing.assert_allclose(found, windowed(values, -1000, 1000), atol=0.51)
    with pytest.raises(BadImage, match="signed .* window"):
        Encoded(data, 1).pixels()
