"""Transparent images on a background, against float64; and what a source reports of them."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from mae_jax.data.images import Encoded
from mae_jax.data.reading import Reading
from mae_jax.data.sources import folder
from mae_jax.types import UserError

RNG = np.random.default_rng(0)
WHITE = (255, 255, 255)


def on(background, color, alpha):
    """[H, W, 3] float64: what compositing means."""
    share = alpha[..., None] / 255
    return color * share + np.array(background) * (1 - share)


def saved(image, name="PNG", **options):
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def png(depth, kind, rows, key=b""):
    """A PNG of any depth and color type, with the color that is transparent."""
    chunk = lambda name, body: (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    )
    width = len(rows[0]) * 8 // (depth * {0: 1, 2: 3, 4: 2, 6: 4}[kind])
    header = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *([(b"tRNS", key)] if key else []), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("background", [WHITE, (0, 0, 0), (10, 200, 30)])
@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "TGA", "ICO", "QOI"])
def test_color_and_alpha(name, background):
    pixels = RNG.integers(0, 256, (16, 16, 4), np.uint8)
    if name == "ICO":  # which keeps no color where nothing is seen
        pixels[..., 3] |= 1
    data = saved(Image.fromarray(pixels), name, **({"lossless": True, "exact": True}))
    found = Encoded(data, background=background).pixels()
    exact = on(background, pixels[..., :3].astype(float), pixels[..., 3])
    assert np.abs(found - exact).max() < 0.51
    gray = Encoded(data, 1, background=background).pixels()[:, :, 0]
    assert np.abs(gray - exact @ [0.299, 0.587, 0.114]).max() < 1.1
    np.testing.assert_array_equal(Encoded(data, 4).pixels(), pixels)


def test_opaque_images_stay_as_they_are():
    pixels = RNG.integers(0, 256, (6, 8, 4), np.uint8)
    pixels[..., 3] = 255
    np.testing.assert_array_equal(Encoded(saved(Image.fromarray(pixels))).pixels(), pixels[..., :3])


def test_gray_and_alpha():
    pixels = RNG.integers(0, 256, (6, 8, 2), np.uint8)
    for name in ("PNG", "TIFF"):
        found = Encoded(saved(Image.fromarray(pixels), name)).pixels()
        exact = on(WHITE, pixels[..., :1].astype(float), pixels[..., 1])
        assert np.abs(found - exact).max() < 0.51


@pytest.mark.parametrize("key", [1, bytes([255, 0, 128])])
@pytest.mark.parametrize("name", ["PNG", "GIF"])
def test_palettes(name, key):
    if name == "GIF" and isinstance(key, bytes):
        pytest.skip("a GIF has one transparent color")
    colors = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 30]], np.uint8)
    indices = RNG.integers(0, 3, (6, 8)).astype(np.uint8)
    image = Image.fromarray(indices, mode="P")
    image.putpalette(colors.tobytes())
    data = saved(image, name, transparency=key)
    alpha = np.array([255, 0, 255] if key == 1 else list(key))[indices]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow has one for palettes with several alphas
        for channels in (1, 3, 4):
            Encoded(data, channels).pixels()
        found = Encoded(data).pixels()
    assert np.abs(found - on(WHITE, colors[indices].astype(float), alpha)).max() < 0.51


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_one_transparent_gray(depth):
    """A PNG declares it by its number, before Pillow scales it to 8 bits."""
    highest = 2**depth - 1
    values = np.array([0, 1, highest, highest - 1, 0, 1, 1, 0], np.uint16)
    bits = "".join(f"{value:0{depth}b}" for value in values)
    row = int(bits, 2).to_bytes(len(bits) // 8, "big")
    found = Encoded(png(depth, 0, [row], struct.pack(">H", 1)), 1).pixels().ravel()
    exact = np.where(values == 1, 255, values * (255 / highest))
    assert np.abs(found - exact).max() < 0.51
    alpha = Encoded(png(depth, 0, [row], struct.pack(">H", 1)), 4).pixels()[0, :, 3]
    np.testing.assert_array_equal(alpha, np.where(values == 1, 0, 255))


@pytest.mark.parametrize("depth", [8, 16])
def test_one_transparent_color(depth):
    scale, form = (1, ">u1") if depth == 8 else (257, ">u2")
    colors = np.array([[128, 5, 9], [128, 5, 10], [255, 0, 0]]) * scale
    data = png(depth, 2, [colors.astype(form).tobytes()], struct.pack(">HHH", *colors[0]))
    assert Encoded(data).pixels()[0].tolist() == [[255, 255, 255], [128, 5, 10], [255, 0, 0]]


@pytest.mark.parametrize("kind", [4, 6])
def test_16_bits_and_alpha(kind):
    count = {4: 2, 6: 4}[kind]
    values = RNG.integers(0, 65536, (3, 5, count)).astype(">u2")
    data = png(16, kind, [row.tobytes() for row in values])
    exact = on(WHITE, values[..., :-1] / 257, values[..., -1] / 257)
    found = Encoded(data).pixels()
    assert found.shape == (3, 5, 3) and np.abs(found - exact).max() < 2


def test_premultiplied_tiff():
    """Associated alpha: color is stored as what it adds."""
    tifffile = pytest.importorskip("tifffile")
    alpha = np.full((4, 5, 1), 128)
    color = RNG.integers(0, 129, (4, 5, 3))
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        np.concatenate([color, alpha], axis=2).astype(np.uint8),
        photometric="rgb",
        extrasamples=["assocalpha"],
    )
    found = Encoded(file.getvalue()).pixels()
    assert np.abs(found - (color + 255 - alpha)).max() < 2


def test_a_fourth_channel_that_is_no_alpha():
    pixels = RNG.integers(0, 256, (6, 8, 4), np.uint8)
    data = bytearray(saved(Image.fromarray(pixels), "TGA"))
    data[17] &= 0xF0  # no bits of alpha
    np.testing.assert_array_equal(Encoded(bytes(data)).pixels(), pixels[..., :3])
    assert (Encoded(bytes(data), 4).pixels()[..., 3] == 255).all()
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, photometric="rgb", extrasamples=["unspecified"])
    np.testing.assert_array_equal(Encoded(file.getvalue()).pixels(), pixels[..., :3])


def test_a_text_called_transparency_is_no_transparency():
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    texts.add_text("transparency", "none")
    pixels = RNG.integers(0, 256, (6, 8, 3), np.uint8)
    data = saved(Image.fromarray(pixels), pnginfo=texts)
    for channels in (1, 3, 4):
        assert Encoded(data, channels).pixels().shape == (6, 8, channels)
    np.testing.assert_array_equal(Encoded(data).pixels(), pixels)


@pytest.mark.parametrize(
    ("background", "expected"),
    [("white", WHITE), ("#102030", (16, 32, 48)), (7, (7, 7, 7)), ((1, 2, 3), (1, 2, 3))],
)
def test_backgrounds(tmp_path, background, expected):
    Image.new("RGBA", (3, 2)).save(tmp_path / "1.png")
    source = folder.make(str(tmp_path), background=background)
    assert (source.read([0])["image"][0].pixels() == expected).all()
    assert source.notes == (
        f"transparent pixels show the background {background} (1 of 1 images looked at have an "
        "alpha channel): choose it with background=..., or keep it with channels=4",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"background": "whyte"},
            "test: background 'whyte' is not a color: give a name such as white",
        ),
        ({"background": 256}, "test: background 256 is not a color"),
        ({"background": (1, 2)}, r"test: background \(1, 2\) is not a color"),
        ({"background": 0.5}, "test: background 0.5 is not a color"),
        ({"background": "black", "channels": 4}, "background 'black' has no effect, as channels=4"),
        ({"max_pixels": 0}, "test: max_pixels 0 should be a positive integer"),
        ({"max_pixels": 1e9}, "test: max_pixels 1000000000.0 should be a positive integer"),
        ({"channels": 2}, "test: channels 2 is not supported: choose 1, 3, 4"),
    ],
)
def test_options_that_cannot_be(options, message):
    defaults = dict(channels=3, window=None, background="white", max_pixels=100)
    with pytest.raises(UserError, match=message):
        Reading("test", **(defaults | options))
