"""Decoding and resizing against Pillow and float64 matrices, and every kind of bad image."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mae_jax.data.images import (
    MAX_PIXELS,
    BadImage,
    Encoded,
    cut,
    decode_mask,
    window_to_bytes,
)


def noise(height, width, channels=3, seed=0):
    """[H, W, C] uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def photograph(height, width):
    """[H, W, 3] uint8: smooth shapes with edges and some noise, as in a photograph."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = np.stack([np.sin(9 * x + 3 * y), np.cos(14 * x * y), np.sin(7 * y - x)], axis=2)
    picture = 128 + 90 * waves + 30 * (np.hypot(x - 0.4, y - 0.3) < 0.2)[:, :, None]
    picture += np.random.default_rng(0).normal(0, 4, picture.shape)
    return picture.clip(0, 255).astype(np.uint8)


def encode(pixels, name="JPEG", mode=None, **options):
    """The bytes of an image file."""
    file = io.BytesIO()
    image = Image.fromarray(pixels.squeeze()) if mode is None else Image.fromarray(pixels, mode)
    image.save(file, name, **options)
    return file.getvalue()


def pillow(data, mode="RGB"):
    """What Pillow makes of an image file, [H, W, C] uint8."""
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


def bicubic_matrix(old, new):
    """[new, old] float64 weights of the bicubic filter (a = -0.5), widened when it shrinks."""
    step = old / new
    width = max(step, 1.0)
    matrix = np.zeros((new, old))
    for i in range(new):
        center = (i + 0.5) * step
        first = max(0, int(center - 2 * width + 0.5))
        last = min(old, int(center + 2 * width + 0.5))
        for j in range(first, last):
            x = abs((j + 0.5 - center) / width)
            if x < 1:
                matrix[i, j] = 1.5 * x**3 - 2.5 * x**2 + 1
            elif x < 2:
                matrix[i, j] = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        matrix[i] /= matrix[i].sum()
    return matrix


def exact(image, new):
    """Bicubic resizing with antialiasing in float64, not rounded: [*new, C]."""
    vertical, horizontal = (
        bicubic_matrix(image.shape[0], new[0]),
        bicubic_matrix(image.shape[1], new[1]),
    )
    return np.einsum("iy,yxc,jx->ijc", vertical, image, horizontal, optimize=True)


RESIZES = [
    ((40, 30), (10, 12)),
    ((9, 13), (32, 31)),
    ((33, 17), (16, 40)),
    ((375, 500), (224, 224)),
]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("old", "new"), RESIZES)
def test_resizing_is_bicubic_with_antialiasing(old, new, channels):
    """Two passes, each rounded and clipped: two gray levels at most where nothing is clipped."""
    image = noise(*old, channels) // 4 + 96
    found = cut(image, (0, 0, *old), new)
    assert (found.shape, found.dtype) == ((*new, channels), np.uint8)
    error = np.abs(found - exact(image, new))
    assert error.max() < 2 and error.mean() < 0.5


def test_pixels_are_close_to_those_of_pillow():
    image = photograph(375, 500)
    for box in [(0, 0, 375, 500), (11, 30, 300, 280), (100, 200, 130, 150)]:
        top, left, rows, columns = box
        part = Image.fromarray(image[top : top + rows, left : left + columns])
        theirs = np.asarray(part.resize((224, 224), Image.BICUBIC)).astype(int)
        difference = np.abs(cut(image, box, (224, 224)) - theirs)
        assert difference.mean() < 0.3 and difference.max() <= 3
        assert (difference > 1).mean() < 0.001


def test_an_image_that_fits_is_left_alone():
    image = noise(20, 30)
    np.testing.assert_array_equal(cut(image, (0, 0, 20, 30), (20, 30)), image)
    np.testing.assert_array_equal(cut(image, (3, 4, 10, 12), (10, 12)), image[3:13, 4:16])
    assert cut(image, (0, 0, 20, 30), (30, 20)).shape == (30, 20, 3)


def test_overshoots_are_clipped():
    edge = np.zeros((16, 16, 1), np.uint8)
    edge[:, 8:] = 255
    larger = cut(edge, (0, 0, 16, 16), (64, 64))
    assert (larger[:, :24] < 128).all() and (larger[:, 40:] > 128).all()
    assert larger.min() == 0 and larger.max() == 255


@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"progressive": True}, {"quality": 30}]
)
@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (1, "L")])
def test_jpegs_have_the_pixels_of_pillow(options, channels, mode):
    data = encode(photograph(75, 99), **options)
    difference = np.abs(Encoded(data, channels).pixels().astype(int) - pillow(data, mode))
    assert difference.max() <= (channels == 1), "gray is the luma in the file, not computed again"
    gray = encode(photograph(75, 99)[:, :, :1], **options)
    np.testing.assert_array_equal(Encoded(gray, channels).pixels(), pillow(gray, mode))
    assert Encoded(data).shape == (75, 99)


def test_large_jpegs_are_decoded_at_a_lower_resolution():
    data = encode(photograph(1203, 1601), quality=95)
    image = Encoded(data)
    for box, factor in [((0, 0, 1203, 1601), 8), ((100, 201, 520, 600), 4), ((3, 5, 190, 200), 1)]:
        pixels, inside = image.at_least(box, (64, 64))
        assert pixels.shape[:2] == (-(-1203 // factor), -(-1601 // factor))
        np.testing.assert_array_equal(np.multiply(inside, factor), box)
        top, left, rows, columns = box
        whole = Image.fromarray(pillow(data)[top : top + rows, left : left + columns])
        theirs = np.asarray(whole.resize((64, 64), Image.BICUBIC)).astype(int)
        difference = np.abs(cut(Encoded(data), box, (64, 64)) - theirs)
        assert difference.mean() < 0.6 and difference.max() <= 6


def test_images_are_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: to be shown rotated by 90 degrees, clockwise
    pixels = photograph(40, 60)
    for name in ("PNG", "JPEG"):
        data = encode(pixels, name, exif=exif)
        image = Encoded(data)
        assert image.shape == (60, 40)
        np.testing.assert_array_equal(image.pixels(), np.rot90(pillow(data), -1))
        upright = np.ascontiguousarray(np.rot90(pillow(data), -1))
        np.testing.assert_array_equal(
            cut(image, (1, 2, 50, 30), (25, 20)), cut(upright, (1, 2, 50, 30), (25, 20))
        )


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("name", "mode"), [("PNG", "L"), ("PNG", "RGB"), ("PNG", "RGBA"), ("TIFF", "CMYK")]
)
def test_every_mode(name, mode, channels):
    pixels = noise(6, 8, {"L": 1, "RGB": 3}.get(mode, 4))
    image = Encoded(encode(pixels.squeeze(), name, mode), channels).pixels()
    assert (image.shape, image.dtype) == ((6, 8, channels), np.uint8)
    expected = np.repeat(pixels, 3, axis=2) if mode == "L" else pixels[..., :3].astype(float)
    alpha = pixels[..., 3:] if mode == "RGBA" else np.full((6, 8, 1), 255)
    if channels < 4:  # on white
        expected = (expected * alpha + 255 * (255.0 - alpha)) / 255
    if mode == "CMYK":
        expected = (255 - expected) * (255 - pixels[..., 3:]) / 255
    if channels == 1:
        expected = expected @ [[0.299], [0.587], [0.114]]
    if channels == 4:
        expected = np.concatenate([expected, alpha], axis=2)
    assert np.abs(image - expected).max() <= 1


def test_cmyk_jpegs():
    """Adobe writes CMYK inverted, and Pillow knows: a light image stays light."""
    data = encode(np.zeros((16, 16, 4), np.uint8), "JPEG", "CMYK")
    assert Encoded(data).pixels().min() > 250
    np.testing.assert_array_equal(Encoded(data, 3).pixels(), pillow(data))


def test_palettes_with_transparency():
    colors = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 30]], np.uint8)
    indices = noise(6, 8, 1)[:, :, 0] % 3
    image = Image.fromarray(indices, mode="P")
    image.putpalette(colors.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", transparency=1)
    on_white = np.where(indices[..., None] == 1, 255, colors[indices])
    np.testing.assert_array_equal(Encoded(file.getvalue()).pixels(), on_white)
    with_alpha = Encoded(file.getvalue(), 4).pixels()
    np.testing.assert_array_equal(with_alpha[:, :, :3], colors[indices])
    np.testing.assert_array_equal(with_alpha[:, :, 3], np.where(indices == 1, 0, 255))


def test_the_first_frame_of_an_animation_counts():
    frames = [Image.fromarray(np.full((9, 7), value, np.uint8)) for value in (40, 200)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert (Encoded(file.getvalue()).pixels() == 40).all()


def test_16_bits_keep_their_brightness():
    gray = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    data = encode(gray, "PNG")
    assert np.abs(Encoded(data, 1).pixels()[:, :, 0] - gray / 257).max() <= 1
    assert (Encoded(data, 3).pixels() == Encoded(data, 1).pixels()).all()


def test_windows():
    gray = np.array([[0, 1000, 2000, 3000, 65535]], np.uint16)
    image = Encoded(encode(gray, "PNG"), 1, (1000, 3000)).pixels()
    assert image.ravel().tolist() == [0, 0, 128, 255, 255]
    floats = encode(np.linspace(-1, 1, 5, dtype=np.float32)[None], "TIFF")
    assert Encoded(floats, 1, (-1, 1)).pixels().ravel().tolist() == [0, 64, 128, 191, 255]
    with pytest.raises(
        BadImage, match=r"pixels of 32 bits, or signed \(F\): give the source a window"
    ):
        Encoded(floats).pixels()
    colors = noise(4, 5)
    assert (Encoded(encode(colors, "PNG"), 3, (0, 255)).pixels() == colors).all()
    assert window_to_bytes(np.array([-10.0, 0, 40, 90]), (0, 80)).tolist() == [0, 0, 128, 255]


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.9])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_truncated_images(name, share):
    data = encode(noise(40, 40), name)
    with pytest.raises(BadImage):
        Encoded(data[: int(share * len(data))]).pixels()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>Not Found</html>", "it starts with b'<!DOCTYPE html><'"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "no image format that is known"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    ],
)
def test_what_is_no_image(data, reason):
    with pytest.raises(BadImage) as error:
        Encoded(data).pixels()
    assert reason in str(error.value)


def test_a_jpeg_with_junk_between_markers_is_read_as_pillow_reads_it():
    """Such files are common in web collections; libjpeg only warns about them."""
    data = encode(photograph(40, 50))
    junk = data[:2] + b"\xff\xfe\x00\x04ab" + b"\x00\x01\x02" + data[2:]
    np.testing.assert_array_equal(Encoded(junk).pixels(), pillow(junk))


def png_of(height, width):
    """A PNG that says that it is this large; it has hardly any data."""
    chunk = lambda kind, body: (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def jpeg_of(height, width):
    """A JPEG with another size in its header."""
    data = encode(photograph(16, 16))
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


@pytest.mark.parametrize("make", [png_of, jpeg_of])
def test_bombs_are_refused_before_they_unpack(make):
    assert 60_000**2 > MAX_PIXELS
    with pytest.raises(BadImage, match="60000 x 60000 pixels are over the limit of 178956970"):
        Encoded(make(60_000, 60_000)).pixels()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_exif_that_cannot_be_read_does_not_matter():
    pixels = photograph(40, 60)
    good = pillow(encode(pixels))
    for seed in range(60):
        junk = np.random.default_rng(seed).integers(0, 256, 80, np.uint8).tobytes()
        head = b"Exif\0\0" + (b"MM\0*\0\0\0\x08" if seed % 2 else b"II*\0\x08\0\0\0")
        found = Encoded(encode(pixels, exif=head + junk)).pixels()
        assert found.shape in ((40, 60, 3), (60, 40, 3)) and found.size == good.size


def test_exif_without_a_turn_stays_on_the_fast_path():
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "a camera", 1
    image = Encoded(encode(photograph(800, 900), exif=exif))
    assert image.at_least((0, 0, 800, 900), (64, 64))[0].shape == (200, 225, 3)


def test_a_thin_image_does_not_fill_the_memory():
    data = encode(np.zeros((1, 10_000), np.uint8), "PNG")
    with pytest.raises(BadImage, match="256 x 2560000 pixels after resizing: over 178956970"):
        cut(Encoded(data), (0, 0, 1, 10_000), (256, 2_560_000))


def test_windows_are_for_deep_images():
    pixels = noise(4, 5)
    assert (Encoded(encode(pixels, "PNG"), 3, (0, 4095)).pixels() == pixels).all()
    deep = Encoded(encode(np.full((2, 2), 4095, np.uint16), "PNG"), 4, (0, 4095)).pixels()
    assert (deep == 255).all(), "alpha too"


def test_masks_keep_their_numbers():
    numbers = noise(6, 8, 1)[:, :, 0] % 3
    palette = Image.fromarray(numbers, mode="P")
    palette.putpalette([200, 10, 10, 20, 200, 20, 30, 30, 200])
    file = io.BytesIO()
    palette.save(file, "PNG")
    np.testing.assert_array_equal(decode_mask(file.getvalue()), numbers)
    with pytest.raises(BadImage, match="its mask has 3 channels"):
        decode_mask(encode(noise(3, 3), "PNG"))
    with pytest.raises(BadImage, match="its mask: "):
        decode_mask(b"nothing")
