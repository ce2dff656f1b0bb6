"""docs/data.md: every row of its tables is generated, and what a source does with it compared with
what the table says. A new row needs a `case` of its own here.
"""

import io
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageOps

from mae_jax.data.decoding import extensions
from mae_jax.data.images import BadImage, Encoded
from mae_jax.data.sources import array_file, dicom, folder, nifti, tfds, tiff
from mae_jax.types import UserError
from tests.data.test_depth import ppm_of, tiff_of
from tests.data.test_leftovers import save
from tests.data.test_medical import save_dicom, save_nifti
from tests.data.test_transparency import png

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
SOURCES = {"folder": folder, "tiff": tiff, "dicom": dicom, "nifti": nifti}
HINTS = {
    "give a window": "window=(low, high)",
    "use `tiff`": "tiff(...)",
    "use `folder`": "folder(...)",
    "raise it": "raise max_pixels",
    "it would have to run": "no image format that is known",
}
"""What a table says of a refusal -> what the message must hold."""
PENDING = {
    "DICOM, deflated",
    "DICOM, JPEG-LS, JPEG lossless or JPEG 2000",
    "DICOM, palette color",
    "DICOM, no preamble, or any name",
    "DICOM, a report or plan",
    "NIfTI, pairs of .hdr and .img",
    "NIfTI, colors",
    "NIfTI of another rank, CIFTI",
}
"""Rows that test_dicom_pixels.py, test_dicom_kinds.py and test_volume_kinds.py test."""

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (6, 8, 3), np.uint8)
DEEP = RNG.integers(0, 65536, (6, 8, 3)).astype(np.uint16)
TWELVE = (DEEP[..., 0] >> 4) | 2048
WINDOW = (1000, 50_000)


def windowed(values, low, high):
    """What a window means, in float64: [H, W, C], not rounded."""
    return np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255


def rows():
    """(first cell, {header: cell}) of every row of every table on the page."""
    header = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            header = []
        elif not header:
            header = cells
        elif not set(line) <= set("|-"):
            yield header[0], cells[0], dict(zip(header[1:], cells[1:], strict=True))


class Case(NamedTuple):
    """A file, and what should come of it where it is read."""

    name: str
    data: bytes
    expected: np.ndarray | None = None
    """[H, W, C] of `folder`; None: any pixels."""
    tiff: np.ndarray | None = None
    """The same of `tiff`."""
    options: dict = {}
    """Of the sources."""
    examples: int = 1
    """Of `tiff`."""


def saved(pixels, name, **options):
    """The bytes of an image file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, name, **options)
    return file.getvalue()


def of_extensions(row):
    """A file of each extension that a row names, and that Pillow can write; as Pillow reads it."""
    for ending in re.findall(r"(?<!\w)\.\w+", row):
        name = Image.registered_extensions()[ending]
        image = Image.fromarray(BYTES).resize((32, 32))
        file = io.BytesIO()
        if name in ("FITS", "PSD"):
            continue
        for mode in ("RGB", "L", "1", "F"):
            try:
                image.convert(mode).save(file, name)
                break
            except (OSError, ValueError):
                continue
        expected = Image.open(file)
        if expected.mode[0] not in "IF":
            pixels = np.asarray(expected.convert("RGB"))
            yield Case(f"1{ending}", file.getvalue(), pixels, np.asarray(image))
        else:
            yield Case(f"1{ending}", file.getvalue(), options={"window": (0, 255)})


def left_out(row):
    """Files of the extensions that a row names."""
    return [Case(f"1{ending}", saved(BYTES, "PNG")) for ending in re.findall(r"(?<!\w)\.\w+", row)]


def several_pages(row):
    """An animation for `folder`, pages for `tiff`."""
    pages = np.stack([BYTES, 255 - BYTES])
    yield Case("1.tif", tiff_of(pages, photometric="rgb"), BYTES, BYTES, examples=2)
    first, second = map(Image.fromarray, pages)
    for name, ending in (("PNG", "png"), ("WEBP", "webp")):
        file = io.BytesIO()
        first.save(file, name, save_all=True, append_images=[second], lossless=True)
        yield Case(f"1.{ending}", file.getvalue(), BYTES)


def damaged(row):
    """Files that hold no image, and half of one."""
    for data in (b"", saved(BYTES, "PNG")[:60]):
        yield Case("1.png", data)


def gray(values, options=None, *, folder=None, tiff=None, **writing):
    """A TIFF of a row about depths."""
    data = tiff_of(values, **({"photometric": "minisblack"} | writing))
    read = lambda exact: None if exact is None else exact[..., None] if exact.ndim == 2 else exact
    return [Case("1.tif", data, read(folder), read(tiff), options or {})]


def wide(channel):
    """[H, W, 3] of a gray image."""
    return np.repeat(channel[..., None], 3, axis=2)


def transparent(options=None, *, kept=False):
    """Color and alpha in a PNG and a TIFF."""
    pixels = RNG.integers(0, 256, (6, 8, 4), np.uint8)
    share = pixels[..., 3:] / 255
    shown = pixels if kept else pixels[..., :3] * share + 255 * (1 - share)
    stored = tiff_of(pixels, photometric="rgb", extrasamples=["unassalpha"])
    cases = [Case("1.png", saved(pixels, "PNG"), shown, options=options or {})]
    return cases if kept else [*cases, Case("1.tif", stored, shown, pixels)]


def overviews(row):
    """A scene with an overview before and a mask behind it."""
    import tifffile

    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(BYTES[::2, ::2], photometric="rgb", subfiletype=1)
        writer.write(BYTES, photometric="rgb")
        writer.write(np.ones((6, 8), bool), photometric="minisblack", subfiletype=4)
    return [Case("1.tif", file.getvalue(), BYTES, BYTES)]


def key(row):
    """A PNG and a GIF with one transparent color."""
    image = Image.fromarray(np.array([[0, 1], [1, 2]], np.uint8), mode="P")
    image.putpalette([9, 9, 9, 250, 10, 10, 70, 80, 90])
    shown = np.array([[[9] * 3, [255] * 3], [[255] * 3, [70, 80, 90]]])
    for name in ("PNG", "GIF"):
        file = io.BytesIO()
        image.save(file, name, transparency=1)
        yield Case(f"1.{name.lower()}", file.getvalue(), shown)


def large_profile(row):
    """Of 3 MB."""
    return [Case("1.png", saved(BYTES, "PNG", icc_profile=bytes(3_000_000)), BYTES)]


def deep_alpha(row):
    """Color and alpha of 16 bits."""
    pixels = RNG.integers(0, 256, (6, 8, 4)).astype(np.uint16) * 257
    share = pixels[..., 3:] / 65535
    shown = pixels[..., :3] / 257 * share + 255 * (1 - share)
    data = png(16, 6, [line.astype(">u2").tobytes() for line in pixels])
    stored = tiff_of(pixels, photometric="rgb", extrasamples=["unassalpha"])
    return [Case("1.png", data, shown), Case("1.tif", stored, shown)]


def palette(row):
    """A TIFF with a palette."""
    colors = RNG.integers(0, 256, (256, 3)).astype(np.uint16)
    values = BYTES[..., 0]
    data = tiff_of(values, photometric="palette", colormap=(colors * 257).T)
    return [Case("1.tif", data, colors[values])]


def turned(*names):
    """Images of all orientations."""
    for turn in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        for name in names:
            data = saved(BYTES, name, exif=exif, **({"lossless": True} if name == "WEBP" else {}))
            if name == "JPEG":
                data = data[:2] + b"\xff\xfe\x00\x06\xff\xda\xff\xd9" + data[2:]
            expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
            yield Case(f"1.{name.lower()}", data, expected)


def turned_tiff(row):
    """Of 8 and of 16 bits, in both byte orders."""
    for turn in range(2, 9):
        image = Image.fromarray(BYTES)
        image.getexif()[0x0112] = turn
        expected = np.asarray(ImageOps.exif_transpose(image))
        for order, scale in ((">", 1), ("<", 257)):
            values = BYTES.astype(np.uint8 if scale == 1 else np.uint16) * scale
            tags = dict(byteorder=order, extratags=[(274, "H", 1, turn, True)])
            data = tiff_of(values, photometric="rgb", **tags)
            options = {} if scale == 1 else {"window": (0, 65535)}
            yield Case("1.tif", data, expected, expected, options)


CMYK = RNG.integers(0, 256, (6, 8, 4), np.uint8)
FLOATS = DEEP[..., 0].astype(np.float32)
CASES = {
    "others that Pillow reads": of_extensions,
    "an animation, or several pages": several_pages,
    "programs, documents and videos": left_out,
    "formats without a reader in Pillow": left_out,
    "a JPEG called .png": lambda row: [Case("1.png", saved(BYTES, "JPEG"))],
    "PostScript called .jpg": lambda row: [
        Case("1.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    ],
    "a damaged or empty file": damaged,
    "a PNG with a profile or texts of any size": large_profile,
    "more pixels than `max_pixels` (178956970)": lambda row: [
        Case("1.tif", tiff_of(BYTES, photometric="rgb"), tiff=BYTES, options={"max_pixels": 47})
    ],
    "1 bit": lambda row: gray(BYTES[..., 0] > 99, folder=wide((BYTES[..., 0] > 99) * 255)),
    "8 bits, gray or RGB": lambda row: [
        *gray(BYTES[..., 0], folder=wide(BYTES[..., 0]), tiff=BYTES[..., 0]),
        Case("1.tif", tiff_of(BYTES, photometric="rgb"), BYTES, BYTES),
    ],
    "a palette": palette,
    "YCbCr, not in JPEG": lambda row: [
        Case(
            "1.tif",
            tiff_of(BYTES, photometric="ycbcr"),
            np.asarray(Image.fromarray(BYTES, "YCbCr").convert("RGB")),
        )
    ],
    "signed 16 bits": lambda row: [
        Case("1.tif", tiff_of(BYTES[..., 0].astype(np.int16) - 99, photometric="minisblack"))
    ],
    "signed 8 bits": lambda row: [
        Case("1.tif", tiff_of(BYTES[..., 0].view(np.int8), photometric="minisblack"))
    ],
    "CMYK": lambda row: [
        Case(
            "1.tif",
            tiff_of(CMYK, photometric="separated"),
            (255 - CMYK[..., :3].astype(float)) * (255 - CMYK[..., 3:]) / 255,
            CMYK,
        )
    ],
    "16 bits, gray": lambda row: gray(DEEP[..., 0], folder=wide(DEEP[..., 0] / 257)),
    "16 bits, gray, with a window": lambda row: gray(
        DEEP[..., 0],
        {"window": WINDOW},
        folder=wide(windowed(DEEP[..., 0], *WINDOW)),
        tiff=windowed(DEEP[..., 0], *WINDOW),
    ),
    "12 bits, declared by the file, gray": lambda row: [
        *gray(TWELVE, folder=wide(TWELVE * (255 / 4095)), bitspersample=12),
        Case("1.pgm", ppm_of(TWELVE, 4095), wide(TWELVE * (255 / 4095))),
    ],
    "12 bits in a file of 16 bits": lambda row: gray(TWELVE, folder=wide(TWELVE / 257)),
    "16 bits, RGB": lambda row: gray(DEEP, folder=DEEP >> 8, photometric="rgb"),
    "16 bits, RGB, with a window": lambda row: gray(
        DEEP, {"window": WINDOW}, folder=windowed(DEEP, *WINDOW),
        tiff=windowed(DEEP, *WINDOW), photometric="rgb",
    ),
    "16 bits, gray, white is zero": lambda row: gray(
        DEEP[..., 0], folder=wide(255 - DEEP[..., 0] / 257), photometric="miniswhite"
    ),
    "16 bits, white is zero, with a window": lambda row: gray(
        DEEP[..., 0],
        {"window": WINDOW},
        folder=wide(255 - windowed(DEEP[..., 0], *WINDOW)),
        tiff=255 - windowed(DEEP[..., 0], *WINDOW),
        photometric="miniswhite",
    ),
    "32 bits, integers or floats, gray": lambda row: [
        *gray(FLOATS), *gray(FLOATS.astype(np.int32)), *gray(FLOATS.astype(np.uint32))
    ],
    "32 bits, with a window": lambda row: gray(
        FLOATS, {"window": WINDOW}, folder=wide(windowed(FLOATS, *WINDOW)),
        tiff=windowed(FLOATS, *WINDOW),
    ),
    "64 bits, with a window": lambda row: gray(
        FLOATS.astype(float), {"window": WINDOW}, tiff=windowed(FLOATS, *WINDOW)
    ),
    "13 channels": lambda row: gray(
        np.tile(BYTES[..., :1], (1, 1, 13)), tiff=np.tile(BYTES[..., :1], (1, 1, 13)),
        planarconfig="contig",
    ),
    "alpha": lambda row: transparent(),
    "alpha, with channels=4": lambda row: transparent({"channels": 4}, kept=True),
    "one color declared transparent (PNG, GIF)": key,
    "16 bits and alpha": deep_alpha,
    "overviews and masks beside an image (NewSubfileType 1, 4)": overviews,
    "in a JPEG, wherever its Exif is": lambda row: turned("JPEG"),
    "in a PNG, WebP or AVIF": lambda row: turned("PNG", "WEBP"),  # AVIF: test_orientation
    "in a TIFF of any depth and byte order": turned_tiff,
}  # fmt: skip
"""First cell of a row, or what stands before a colon in it -> the files."""
ELSEWHERE = {
    "of an image with masks or boxes": "test_orientation.py",
    "the same with annotated=stored": "test_orientation.py",
    "of a mask file": "test_orientation.py",
}
"""Rows that other tests are about."""


def outcome(source, path, case):
    """What a source does with a file beside a good one: a verdict and the pixels or the message."""
    name, make = path.name, SOURCES[source].make
    known = {"folder": ("window", "channels", "max_pixels"), "tiff": ("window",)}[source]
    options = {key: value for key, value in case.options.items() if key in known}
    try:
        found = make(str(path.parent), **options)
        names = [found.name(i) for i in range(found.num_examples)]
        places = [i for i, other in enumerate(names) if other.split("[")[0] == name]
        if not places:
            assert any("left out 1 file of other kinds" in note for note in found.notes)
            return "left out", None
        assert len(places) == (case.examples if source == "tiff" else 1)
        image = found.read(places[:1])["image"][0]
        return "read", image.pixels() if isinstance(image, Encoded) else image
    except (UserError, BadImage) as error:
        return "refused", str(error)


def check(source, cell, path, case):
    """Compares what a source does with a file with what a cell of the table says."""
    path.write_bytes(case.data)
    verdict, found = outcome(source, path, case)
    said, _, detail = cell.partition(": ")
    assert verdict == said.replace("turned", "read"), (source, path.name, found)
    if verdict == "refused":
        assert HINTS.get(detail, "") in found
    expected = case.expected if source == "folder" else case.tiff
    if verdict == "read" and expected is not None:
        assert found.shape == expected.shape
        assert np.abs(found - expected.astype(float)).max() < 1.01
    path.unlink()


TABLES = list(rows())
FILES = [row for row in TABLES if {"`folder`, `tfds`", "`tiff`"} <= row[2].keys()]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
    "row", [row for row in FILES if row[1] not in ELSEWHERE], ids=lambda r: r[1]
)
def test_files(tmp_path, row):
    pytest.importorskip("tifffile")
    _, title, cells = row
    start = title.partition(":")[0]
    make = CASES.get(title, CASES.get(start, of_extensions if ":" in title else None))
    assert make, "this row needs a case"
    cases = list(make(title))
    assert cases
    good = {
        "folder": ("good.png", saved(BYTES, "PNG")),
        "tiff": ("good.tif", tiff_of(BYTES[..., 0])),
    }
    for source, header in (("folder", "`folder`, `tfds`"), ("tiff", "`tiff`")):
        if not cells[header]:
            continue
        root = tmp_path / source
        root.mkdir()
        (root / good[source][0]).write_bytes(good[source][1])
        for case in cases:
            is_tiff = case.name.endswith((".tif", ".tiff"))
            if source == "folder" or is_tiff or cells[header] == "left out":
                check(source, cells[header], root / case.name, case)
            elif "damaged" in title:
                check(source, cells[header], root / "1.tif", case)


def test_the_extensions_on_the_page_are_those_that_are_opened():
    listed = {end for _, title, cells in FILES if cells["`folder`, `tfds`"] == "read"
              for end in re.findall(r"(?<!\w)\.\w+", title)}  # fmt: skip
    assert listed <= {*extensions()}
    common = {"JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM", "MPO"}
    known = Image.registered_extensions()
    assert {end for end in extensions() if known[end] in common} <= listed


def test_tfds_reads_files_as_folder_does():
    from mae_jax.data.reading import Reading

    assert tfds.Reading is folder.Reading is Reading


LEFTOVERS = [row for row in TABLES if "every source of files" in row[2]]


@pytest.mark.parametrize("row", LEFTOVERS, ids=lambda row: row[1])
def test_leftovers(tmp_path, row):
    _, title, cells = row
    save(tmp_path / "cat.png")
    title = title.replace("\\", "")
    if "link" in title:
        (tmp_path / "cats").mkdir()
        save(tmp_path.parent / f"{tmp_path.name}-dogs" / "dog.png")
        (tmp_path / "dogs").symlink_to(tmp_path.parent / f"{tmp_path.name}-dogs")
        (tmp_path / "cats" / "back").symlink_to(tmp_path)
        names = ["dogs/dog.png"]
    else:
        names = title.partition(": ")[2].replace("System Volume Information", "System?").split()
        names = [name.replace("?", " Volume Information") for name in names or title.split(", ")]
        for name in names:
            is_folder = "folders" in title or name in (".ipynb_checkpoints", ".git", ".Trashes")
            path = tmp_path / name / "1.jpg" if is_folder else tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(saved(BYTES, "JPEG"))
    source = folder.make(str(tmp_path))
    found = {source.name(i) for i in range(source.num_examples)} - {"cat.png"}
    if cells["every source of files"] == "left out" and "link" not in title:
        assert not found and source.notes[0].startswith(f"left out {len(names)} files and folders")
    else:
        assert found == set(names)


MEDICAL = [row for row in TABLES if row[2].keys() == {"source", ""}]
VOLUME = RNG.integers(0, 1000, (4, 5, 3)).astype(np.int16)


def of_dicom(values, **fields):
    """Writes a DICOM file."""
    return lambda root: save_dicom(root, "1.dcm", values, **fields)


def array_of(values):
    """Writes an .npy."""
    return lambda root: np.save(root / "1.npy", values, allow_pickle=True)


CT = RNG.integers(0, 1000, (4, 5)).astype(np.uint16)
OWN = dict(WindowCenter=500.5, WindowWidth=1001)
MEDICAL_CASES = {
    "DICOM, gray": (of_dicom(CT, **OWN), {}, [windowed(CT, 0, 1000)[..., None]]),
    "DICOM, MONOCHROME1": (
        of_dicom(CT, PhotometricInterpretation="MONOCHROME1", **OWN),
        {},
        [255 - windowed(CT, 0, 1000)[..., None]],
    ),
    "DICOM, RGB or YBR of 8 bits": (of_dicom(BYTES), {}, [BYTES]),
    "DICOM, several frames": (
        of_dicom(np.stack([CT, CT // 2]), **OWN),
        {},
        [windowed(CT, 0, 1000)[..., None], windowed(CT // 2, 0, 1000)[..., None]],
    ),
    "DICOM, no window given and none of its own": (of_dicom(CT), {}, None),
    "DICOMDIR": (
        lambda root: (root / "DICOMDIR").write_bytes(bytes(128) + b"DICM"), {}, None
    ),
    "NIfTI, [X, Y, Z] or [X, Y, Z, C], with a window": (
        lambda root: save_nifti(root, "1.nii", VOLUME),
        {"window": (0, 1000)},
        [windowed(VOLUME[:, :, [k]], 0, 1000) for k in range(3)],
    ),
    "NIfTI, no window": (lambda root: save_nifti(root, "1.nii", VOLUME), {}, None),
    ".npy or .npz of uint8": (array_of(np.stack([BYTES] * 2)), {}, [BYTES] * 2),
    ".npy of another type, with a window": (
        array_of(DEEP[None]), {"window": WINDOW}, [windowed(DEEP, *WINDOW)]
    ),
    ".npy of another type, no window": (array_of(DEEP[None]), {}, None),
    ".npy of Python objects": (array_of(np.array([object()])), {}, None),
}  # fmt: skip
"""First cell of a row -> what writes the file, options of the source, its examples."""


@pytest.mark.parametrize(
    "row", [row for row in MEDICAL if row[1] not in PENDING], ids=lambda r: r[1]
)
def test_medical_images_and_arrays(tmp_path, row):
    pytest.importorskip("pydicom")
    pytest.importorskip("nibabel")
    _, title, cells = row
    assert title in MEDICAL_CASES, "this row needs a case"
    write, options, expected = MEDICAL_CASES[title]
    write(tmp_path)
    said, _, detail = cells[""].partition(": ")
    name = cells["source"].strip("`")
    path = tmp_path / "1.npy" if name == "array_file" else tmp_path
    make = array_file.make if name == "array_file" else SOURCES[name].make
    if said != "read":
        with pytest.raises(UserError) as error:
            make(str(path), **options)
        known = "no files in" if said == "left out" else HINTS.get(detail, "")
        assert known in str(error.value)
        return
    source = make(str(path), **options)
    images = source.read(np.arange(source.num_examples))["image"]
    assert len(images) == len(expected)
    for found, exact in zip(images, expected, strict=True):
        assert found.shape == exact.shape and np.abs(found - exact).max() < 0.51


def test_every_table_is_tested():
    tested = [*FILES, *LEFTOVERS, *MEDICAL]
    others = [title for header, title, cells in TABLES if (header, title, cells) not in tested]
    named = {cell for row in TABLES if row[0] == "name of a class" for cell in [row[1]]}
    named |= {title for _, title, cells in TABLES if cells.keys() == {"`folder`, `tfds`", "`tiff`"}}
    options = ("option", "`data.sampling`")  # test_table.py and test_sampling.py
    named |= {title for header, title, _ in TABLES if header in options}
    assert set(others) <= named, "classes: test_leftovers.py"
