"""What systems, editors and network drives leave in folders, names that look alike, and what else
is no image of the user's: left out and counted, by every source that reads files.
"""

import os

import numpy as np
import pytest
from PIL import Image

from mae_jax.data import make_data
from mae_jax.data.decoding import extensions
from mae_jax.data.images import BadImage
from mae_jax.data.named import source_spec
from mae_jax.data.sources import array_file, dicom, folder, nifti, tiff
from mae_jax.types import UserError
from tests.data.test_medical import save_dicom, save_nifti, save_tiff

FOLDERS = (
    *(
        ".ipynb_checkpoints",
        "__MACOSX",
        ".Trashes",
        ".Spotlight-V100",
        ".fseventsd",
        ".AppleDouble",
    ),
    *(".TemporaryItems", "Network Trash Folder", "Temporary Items", ".DocumentRevisions-V100"),
    *("$RECYCLE.BIN", "$Recycle.Bin", "RECYCLER", "System Volume Information", "lost+found"),
    *(
        "@eaDir",
        "#recycle",
        "#snapshot",
        "@Recycle",
        "@Recently-Snapshot",
        ".@__thumb",
        "~snapshot",
    ),
    *(".snapshot", ".zfs", ".recycle", ".Trash-1000", "LOST.DIR", ".thumbnails", ".stversions"),
    *(".git", ".svn", ".hg", ".dvc", ".cache", ".idea", ".vscode", "__pycache__", "@tmp", "_svn"),
    *("_vti_cnf", "_vti_pvt"),
)
FILES = (  # before the extension, and behind it
    *("._{}", ".{}", ".nfs0001{}", ".fuse_hidden001{}", ".goutputstream-X1{}", ".smbdelete{}"),
    *(".~lock.{}#", ".{}.Xa81Bc", ".trashed-1-{}", ".pending-1-{}", "~${}", "~syncthing~{}.tmp"),
    *("{}~", "#{}#", "{}.tmp", "{}.part", "{}.partial", "{}.crdownload", "{}.download", "{}.swp"),
    *("{}.bak", "{}.orig", "{}.filepart", "{}:Zone.Identifier", "{}@SynoEAStream", "{}.opdownload"),
)
NAMES = (
    ".DS_Store",
    "Thumbs.db",
    "thumbs.db",
    "desktop.ini",
    "ehthumbs.db",
    "Icon\r",
    ".directory",
)


def save(path, seed=0):
    """A small PNG or JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def strew(root, example):
    """Leaves everything there is everywhere, with the name and bytes of a real file."""
    data, name = example.read_bytes(), example.name
    for place in (root, *(path for path in root.iterdir() if path.is_dir())):
        for left in FOLDERS:
            (place / left / "deeper").mkdir(parents=True)
            (place / left / name).write_bytes(data)
            (place / left / "deeper" / name).write_bytes(data)
        for left in (*(pattern.format(name) for pattern in FILES), *NAMES):
            (place / left).write_bytes(data)


def facts(source):
    """What leftovers may not change."""
    names = [source.name(i) for i in range(source.num_examples)]
    labels = source.read(np.arange(source.num_examples))["label"]
    return names, labels, tuple(source.class_names), tuple(source.empty_classes), source.digest


def write_folder(root):
    """Three images of two classes."""
    for i, name in enumerate(["cat/1.jpg", "cat/2.jpg", "dog/1.jpg"]):
        save(root / name, i)
    return "jpg", lambda: folder.make(str(root))


def write_tiff(root):
    """Two of two classes."""
    for name in ("cat/1.tif", "dog/1.tif"):
        save_tiff(root, name, np.zeros((4, 5), np.uint8))
    return "tif", lambda: tiff.make(str(root))


def write_dicom(root):
    """Two of two classes."""
    for name in ("cat/1.dcm", "dog/1.dcm"):
        save_dicom(root, name, np.zeros((4, 5), np.uint16), WindowCenter=50, WindowWidth=100)
    return "dcm", lambda: dicom.make(str(root))


def write_nifti(root):
    """Two volumes of one slice, of two classes."""
    for name in ("cat/1.nii", "dog/1.nii"):
        save_nifti(root, name, np.zeros((4, 5, 1), np.int16))
    return "nii", lambda: nifti.make(str(root), window=(0, 9))


@pytest.mark.parametrize("write", [write_folder, write_tiff, write_dicom, write_nifti])
def test_leftovers_change_nothing_and_are_counted(tmp_path, write):
    ending, make = write(tmp_path)
    before = facts(make())
    strew(tmp_path, tmp_path / "cat" / f"1.{ending}")
    source = make()
    assert facts(source) == before
    count = 3 * (len(FOLDERS) + len(FILES) + len(NAMES))
    note = f"left out {count} files and folders that systems and programs leave behind: "
    assert [n.startswith(note) for n in source.notes].count(True) == 1, source.notes


def test_the_note_names_what_was_found(tmp_path):
    save(tmp_path / "cat" / "1.png")
    for name in ("._1.png", "._2.png", ".DS_Store", "3.png.part", "~$a.docx"):
        (tmp_path / "cat" / name).write_bytes(b"")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "Thumbs.db").write_bytes(b"")
    assert folder.make(str(tmp_path)).notes == (
        "left out 7 files and folders that systems and programs leave behind: ._* 2, "
        "*.part 1, .DS_Store 1, .ipynb_checkpoints/ 1, Thumbs.db 1, ~$* 1",
    )


def test_a_folder_inside_a_hidden_one_is_read(tmp_path):
    save(tmp_path / ".data" / "lost+found" / "cat" / "1.png")
    assert folder.make(str(tmp_path / ".data" / "lost+found")).class_names == ("cat",)


@pytest.mark.parametrize(
    "name", ["recycled", "tmp", "cache", "Thumbs", "macosx", "~cat", "@cat", "#cat", "$cat", "part"]
)
def test_classes_of_similar_names_are_read(tmp_path, name):
    save(tmp_path / name / "a.part.png")
    save(tmp_path / name / "~a.png")
    assert folder.make(str(tmp_path)).num_examples == 2


def test_files_of_other_kinds_are_counted_in_one_line(tmp_path):
    save(tmp_path / "1.png")
    for name in ("a.txt", "b.TXT", "c.mp4", "d.heic", "README", "e.pdf", "f.eps", "g.svg", "h.h5"):
        (tmp_path / name).write_bytes(b"")
    assert folder.make(str(tmp_path)).notes == (
        "left out 9 files of other kinds: .txt 2, .eps 1, .h5 1, .heic 1, .mp4 1, .pdf 1, .svg 1, "
        "README 1",
    )
    os.remove(tmp_path / "1.png")
    with pytest.raises(
        UserError, match="no files .* looked for .jpg, .* left out 9 files of other"
    ):
        folder.make(str(tmp_path))


def test_files_beside_the_classes_are_named(tmp_path):
    save(tmp_path / "cat" / "1.png")
    save(tmp_path / "dog" / "1.png")
    save(tmp_path / "stray.png")
    source = folder.make(str(tmp_path))
    assert source.class_names == () and source.notes == (
        "no classes: 1 file, e.g. 'stray.png', beside 2 sub-folders; move the files into a "
        "sub-folder to use the sub-folders as classes",
    )


def test_every_extension_that_pillow_reads(tmp_path):
    """But for programs, documents and videos."""
    assert {".jfif", ".jpe", ".jp2", ".j2k", ".pgm", ".pbm", ".pnm", ".tga", ".ico"} < {
        *extensions()
    }
    none = {".eps", ".ps", ".pdf", ".mpg", ".mpeg", ".fli", ".flc", ".wmf", ".emf", ".h5", ".grib"}
    assert not none & {*extensions()}
    taken = 0
    for ending in extensions():
        name = Image.registered_extensions()[ending]
        try:
            path = tmp_path / f"1{ending.upper()}"
            Image.new("L" if name != "XBM" else "1", (16, 16), 1).save(path, name)
        except (KeyError, OSError, ValueError):  # Pillow does not write these
            path.unlink(missing_ok=True)
            continue
        taken += 1
        source = folder.make(str(tmp_path), channels=1)
        assert source.num_examples == 1 and "left out" not in str(source.notes)
        shape = source.read([0])["image"][0].pixels().shape
        assert shape[0] >= 16 and shape[2] == 1, ending
        path.unlink()
    assert taken >= 25


# Names of classes.

ODD = ("cat", "cat ", "Cat", " ", "a\nb", "caf\u00e9", "cafe\u0301", "\udcff", "tab\t")


def test_odd_names_are_carried_through_exactly(tmp_path):
    for i, name in enumerate(ODD):
        save(tmp_path / name / "1.png", i)
    source = folder.make(str(tmp_path))
    assert source.class_names == tuple(sorted(ODD))
    assert source.labels().tolist() == list(range(len(ODD)))
    data = make_data(train=f"folder({str(tmp_path)!r})", batch_size=2, train_transform="",
                     eval_transform="")  # fmt: skip
    notes = "\n".join(data.notes())
    notes.encode()  # can be printed
    assert "config.data.train: 9 classes: ' ' 1, Cat 1, 'a\\nb' 1" in notes
    assert "though their names look the same: 'Cat', 'cat', 'cat '" in notes
    assert r"though their names look the same: 'cafe\u0301', 'caf\xe9'" in notes


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a\nb", r"the class 'a\\nb' holds a line break"),
        ("a\rb", r"the class 'a\\rb' holds a line break"),
        (" ", "the class ' ' is nothing but blanks"),
        ("\u3000", "is nothing but blanks"),
        ("cat ", "the class 'cat ' starts or ends with a blank"),
        ("\u00a0cat", "starts or ends with a blank"),
        ("caf\udce9", r"the class 'caf\\udce9' is not UTF-8"),
    ],
)
def test_prepare_refuses_what_it_cannot_carry_before_reading(tmp_path, monkeypatch, name, reason):
    from mae_jax.data import prepare

    save(tmp_path / "images" / "zebra" / "1.png")
    save(tmp_path / "images" / name / "1.png")
    monkeypatch.setattr(prepare, "shard_rows", None)  # what comes before any image is read
    with pytest.raises(UserError, match=f"{reason}, which a prepared data set cannot hold: rename"):
        prepare.prepare(tmp_path / "images", tmp_path / "out", name="pets")
    assert not (tmp_path / "out").exists()


def data_of(root):
    """Of the folders 'train' and 'test' in a folder."""
    return make_data(
        train=f"folder({str(root / 'train')!r})", test=f"folder({str(root / 'test')!r})",
        batch_size=1, train_transform="", eval_transform="",
    )  # fmt: skip


def test_forms_of_unicode_are_one_class_in_training_and_test(tmp_path):
    for i, name in enumerate(["anna", "ren\u00e9e", "zo\u00eb"]):
        save(tmp_path / "train" / name / "1.png", i)
    for name in ("rene\u0301e", "zoe\u0308"):  # as macOS writes them
        save(tmp_path / "test" / name / "1.png")
    test = data_of(tmp_path).source("test")
    assert test.class_names == ("anna", "ren\u00e9e", "zo\u00eb")
    assert test.read(np.arange(2))["label"].tolist() == [1, 2]


def test_other_cases_are_other_classes(tmp_path):
    save(tmp_path / "train" / "cat" / "1.png")
    save(tmp_path / "test" / "Cat" / "1.png")
    with pytest.raises(UserError, match=r"differ: Cat \(cat in the former\) only in the latter"):
        data_of(tmp_path)


@pytest.mark.parametrize("source", [folder, tiff, nifti])
def test_pipes_and_devices_are_not_waited_for(tmp_path, source):
    save_tiff(tmp_path, "a.tif", np.full((2, 3), 5, np.uint8))
    save_nifti(tmp_path, "a.nii", np.full((2, 3, 1), 5, np.uint8))
    for name in ("b.tif", "b.nii", "b.hdr"):
        os.mkfifo(tmp_path / name)
    os.symlink("/dev/zero", tmp_path / "c.tif")
    os.symlink("/dev/zero", tmp_path / "c.nii")
    opened = source.make(str(tmp_path), **({"window": (0, 5)} if source is nifti else {}))
    assert opened.read(np.array([0]))["image"]
    for index in range(1, opened.num_examples):
        with pytest.raises(BadImage, match="it is a pipe, socket or device, not a file"):
            opened.read(np.array([index]))


@pytest.mark.parametrize("path", ["~nobody-of-that-name/x", "x" * 300])
def test_a_folder_that_cannot_be(path):
    for source in (folder, tiff, nifti):
        options = {} if source is folder else {"window": (0, 1)}
        with pytest.raises(UserError, match="there is no folder|File name too long"):
            source.make(path, **options)
    with pytest.raises(UserError, match="cannot read"):
        array_file.make(path)
    with pytest.raises(UserError, match="there is no folder of that name|File name too long"):
        source_spec(path, "config.data.train")
