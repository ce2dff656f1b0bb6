"""DICOM files for tests, written by pydicom from known pixels."""

import copy
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")

from pydicom import uid  # noqa: E402


def dataset(values, **fields):
    """A data set of [H, W], [F, H, W], color [H, W, 3] or no pixels; a field of None is left out,
    one of '' is empty.
    """
    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID = uid.CTImageStorage, uid.generate_uid()
    data.Modality = "CT"
    if values is not None:
        color = values.ndim == 3 and values.shape[-1] == 3
        data.Rows, data.Columns = values.shape[-3:-1] if color else values.shape[-2:]
        data.SamplesPerPixel = 3 if color else 1
        data.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
        if color:
            data.PlanarConfiguration = 0
        elif values.ndim == 3:
            data.NumberOfFrames = len(values)
        data.BitsAllocated = data.BitsStored = 8 * values.itemsize
        data.HighBit = data.BitsStored - 1
        data.PixelRepresentation = int(values.dtype.kind == "i")
        data.PixelData = values.tobytes() + bytes(values.nbytes % 2)
    for keyword, value in fields.items():
        setattr(data, keyword, value)
        if value is None:
            delattr(data, keyword)
    if "PixelData" in data:
        data["PixelData"].VR = "OW"
    return data


def write(path: Path, data, syntax=uid.ExplicitVRLittleEndian) -> Path:
    """Writes a data set as a DICOM file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    if syntax.is_encapsulated:
        data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def bare(path: Path, data, *, implicit: bool = True, little: bool = True) -> Path:
    """Writes the data set alone, without preamble, mark and file meta information, as old files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = copy.deepcopy(data)
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.save_as(path, implicit_vr=implicit, little_endian=little, enforce_file_format=False)
    return path


def mislabeled(path: Path, data, syntax, *, implicit: bool = False) -> Path:
    """Writes a file whose header says that it is stored in another way than it is."""
    whole = bare(path, data, implicit=implicit).read_bytes()
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = uid.CTImageStorage, "1.2"
    file = pydicom.filebase.DicomBytesIO()
    pydicom.filewriter.write_file_meta_info(file, meta)
    path.write_bytes(bytes(128) + b"DICM" + file.getvalue() + whole)
    return path


def compressed(frames: list[bytes]) -> bytes:
    """PixelData of compressed frames."""
    return pydicom.encaps.encapsulate(frames)


def gray(*shape, dtype=np.uint16, low=0, high=4000, seed=0):
    """Random values of a type."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def windowed(values, low, high):
    """What a window makes of values: uint8."""
    scaled = (np.asarray(values, np.float64) - low) / (high - low) * 255
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)


def images_of(source):
    """All images of a source."""
    return source.read(np.arange(source.num_examples))["image"]


def names_of(source):
    """The names of all examples."""
    return [source.name(i) for i in range(source.num_examples)]
