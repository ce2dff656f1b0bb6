"""Builds `ingredients.npz`, the garments and photographs that `fashion_scenes` composes.

Only needed to check or rebuild the file. The same sources and the same versions of numpy and Pillow
reproduce it byte for byte. SOURCES.md lists each ingredient and its license.
"""

import argparse
import gzip
import io
import pathlib
import zipfile

import numpy as np
from PIL import Image

HOW_TO_GET_THE_SOURCES = """
sources:
  apt-get download dataset-fashion-mnist lomiri-wallpapers-16.04
  for package in *.deb; do dpkg -x "$package" debian; done
  pip download --no-deps --dest . scikit-image==0.26.0

then:
  python build.py --fashion-mnist debian/usr/share/datasets/fashion-mnist \\
      --wallpapers debian/usr/share/backgrounds --scikit-image scikit_image-*.whl
"""

GARMENTS_PER_CLASS = {"train": 1200, "test": 200}
GRAY_LEVELS = 32
SHORT_SIDE = 256

# File names without suffix: wallpapers first, then images of skimage/data.
PHOTOGRAPHS = {
    "train": (
        "Picture_0B_by_freespace",
        "Picture_1A_by_freespace",
        "Wine_by_Jakkub_Mede",
        "aitzgorri_by_Aitzol_Berasategi",
        "friends_by_Aitzol_Berasategi",
        "life_by_Aitzol_Berasategi",
        "seeding_by_Clements_Engelhardt",
        "brick",
        "chelsea",
        "grass",
        "hubble_deep_field",
        "rocket",
    ),
    "test": (
        "picosdeeuropa_by_Aitzol_Berasategi",
        "sunset_by_Aitzol_Berasategi",
        "coffee",
        "gravel",
    ),
}


def read_idx(path: pathlib.Path) -> np.ndarray:
    """The uint8 array in a gzipped IDX file (the MNIST format)."""
    data = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def read_garments(folder: pathlib.Path, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """Garments [N, 28, 28] uint8, quantized to `GRAY_LEVELS` levels, and labels [N] uint8."""
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
    steps = GRAY_LEVELS - 1
    levels = (images.astype(np.int32) * steps + 127) // 255
    return ((levels * 255 + steps // 2) // steps).astype(np.uint8), labels


def choose(garments: np.ndarray, labels: np.ndarray, per_class: int, seen: set) -> np.ndarray:
    """Indices of the first usable garments; every ten in a row hold each class once.

    A garment is usable if it is not in `seen` (the data set repeats a few, even across its splits)
    and its outline is visible, neither too dark nor too thin. Adds the chosen garments to `seen`.
    """
    chosen = [[] for _ in range(10)]
    for index, (garment, label) in enumerate(zip(garments, labels)):
        visible = np.count_nonzero(garment >= 64) >= 80
        if visible and len(chosen[label]) < per_class and garment.tobytes() not in seen:
            seen.add(garment.tobytes())
            chosen[label].append(index)
    return np.sort(np.array(chosen).T, axis=1).ravel()


def read_photographs(wallpapers: pathlib.Path, wheel: pathlib.Path) -> dict[str, Image.Image]:
    """Name -> photograph of the two sources, opened but not decoded."""
    files = {path.stem: path.read_bytes() for path in sorted(wallpapers.glob("*.jpg"))}
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("skimage/data/") and name.endswith((".png", ".jpg")):
                files[pathlib.PurePath(name).stem] = archive.read(name)
    return {name: Image.open(io.BytesIO(data)) for name, data in files.items()}


def as_jpeg(photograph: Image.Image) -> np.ndarray:
    """The photograph, resized to a short side of `SHORT_SIDE` pixels, as the bytes of a JPEG.

    Chroma is not subsampled, because its interpolation is the only part of JPEG decoding that
    differs between versions of libjpeg-turbo.
    """
    scale = SHORT_SIDE / min(photograph.size)
    shape = [round(side * scale) for side in photograph.size]
    buffer = io.BytesIO()
    small = photograph.convert("RGB").resize(shape, Image.Resampling.LANCZOS)
    small.save(buffer, "JPEG", quality=88, subsampling=0, optimize=True)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def main():
    """Reads the sources and writes the file, by default next to this script."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=HOW_TO_GET_THE_SOURCES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--fashion-mnist", type=pathlib.Path, required=True, help="a folder")
    parser.add_argument("--wallpapers", type=pathlib.Path, required=True, help="a folder")
    parser.add_argument("--scikit-image", type=pathlib.Path, required=True, help="a wheel")
    default = pathlib.Path(__file__).with_name("ingredients.npz")
    parser.add_argument("--output", type=pathlib.Path, default=default, help="%(default)s")
    args = parser.parse_args()

    photographs = read_photographs(args.wallpapers, args.scikit_image)
    arrays, seen = {}, set()
    for split, prefix in (("train", "train"), ("test", "t10k")):
        garments, labels = read_garments(args.fashion_mnist, prefix)
        indices = choose(garments, labels, GARMENTS_PER_CLASS[split], seen)
        arrays[f"{split}/garments"], arrays[f"{split}/labels"] = garments[indices], labels[indices]
        for name in PHOTOGRAPHS[split]:
            arrays[f"{split}/photographs/{name}"] = as_jpeg(photographs[name])
    np.savez_compressed(args.output, **arrays)


if __name__ == "__main__":
    main()
