"""The files of onnxruntime-web that run an ONNX model in a browser, from the npm registry or from
this machine. It is the build for WebAssembly: one thread needs no special HTTP headers.
"""

import base64
import hashlib
import io
import os
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

from mae_jax.types import UserError

VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the package of this version, in base64: `dist.integrity` in the registry."""
REGISTRY = "https://registry.npmjs.org"
MAX_BYTES = 100_000_000
"""Limit for the package, which has 33 MB."""
TIMEOUT = 60
"""Seconds without an answer."""
FILES = {
    # Named .js, as some file servers send .mjs with a type that browsers do not run.
    "dist/ort.wasm.bundle.min.mjs": "ort.js",
    "dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
}
"""File of the package -> its name beside the page."""
LICENSE = "onnxruntime-web {version}, https://www.npmjs.com/package/onnxruntime-web: MIT License\n"


def runtime_files(place: Path | None) -> dict[str, bytes]:
    """The files by the names that the page knows them by.

    Args:
        place: the package, a .tgz or an unpacked folder, of any version; None: that of `VERSION`
            from the npm registry, whose hash is checked.

    Raises:
        UserError: no connection, another hash, or a package without these files.
    """
    if place is not None and place.is_dir():
        return named({name: read(path) for name, path in unpacked(place).items()}, str(place))
    where = str(place) if place is not None else address()
    package = fetched(where) if place is None else read(place)
    return named(members(package, where), where)


def address() -> str:
    """URL of the package, in the registry that npm's variable `npm_config_registry` names."""
    registry = os.environ.get("npm_config_registry", REGISTRY).rstrip("/")
    return f"{registry}/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"


def fetched(url: str) -> bytes:
    """Downloads the package and checks its hash.

    Raises:
        UserError: no connection, or another hash.
    """
    way_out = "give --onnxruntime PATH, a folder or .tgz of the npm package onnxruntime-web"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            content = answer.read(MAX_BYTES + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise UserError(f"{url} cannot be fetched ({reason}): {way_out}") from error
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != SHA512:
        raise UserError(
            f"{url} is not the package of version {VERSION} (another sha512): {way_out}"
        )
    return content


def read(path: Path) -> bytes:
    """The content of a file of the package.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"--onnxruntime: {path} cannot be read ({error.strerror})") from error


def unpacked(folder: Path) -> dict[str, Path]:
    """The files in a folder: the package, or a folder with node_modules."""
    inside = folder / "node_modules" / "onnxruntime-web"
    top = inside if inside.is_dir() else folder
    return {name: top / name for name in FILES if (top / name).is_file()}


def members(package: bytes, where: str) -> dict[str, bytes]:
    """The files in a .tgz of npm, whose names begin with 'package/'.

    Raises:
        UserError: it is not such a file.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as archive:
            wanted = {f"package/{name}": name for name in FILES}
            found = {wanted[m.name]: m for m in archive if m.name in wanted and m.isfile()}
            return {name: archive.extractfile(member).read() for name, member in found.items()}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{where} is no .tgz of npm ({error})") from error


def named(files: dict[str, bytes], where: str) -> dict[str, bytes]:
    """The files under their names beside the page, with a note of their license.

    Raises:
        UserError: one is missing.
    """
    missing = [name for name in FILES if name not in files]
    if missing:
        raise UserError(
            f"{where} has no {missing[0]}: give the npm package onnxruntime-web, version {VERSION}"
        )
    license_note = LICENSE.format(version=VERSION).encode()
    return {FILES[name]: content for name, content in files.items()} | {"LICENSE": license_note}
