"""Names of the bands of a TIFF file, from the places where programs write them."""

import json
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    import tifffile

_GDAL_METADATA = 42112
_KEYS = ("bands", "band_names", "channels", "names")
"""Keys of a list of names in a JSON description."""


def names_of(file: "tifffile.TiffFile", count: int) -> tuple[str, ...]:
    """The names of the bands; empty if the file names none, or not each of them.

    In this order: GDAL's metadata (the tag 42112, items of the role 'description'), the channels of
    OME-XML, the labels of ImageJ, a JSON description with a list under 'bands', and descriptions of
    one line of each page.

    Args:
        file: the file.
        count: number of its bands.
    """
    found = (_gdal(file), _ome(file), _imagej(file), _json(file), _pages(file, count))
    return next((names for names in found if len(names) == count and all(names)), ())


def _gdal(file: "tifffile.TiffFile") -> tuple[str, ...]:
    items = _parsed(str(file.pages[0].tags.valueof(_GDAL_METADATA, "")), "Item")
    named = {
        int(item.get("sample", -1)): (item.text or "").strip()
        for item in items
        if item.get("role") == "description"
    }
    return tuple(named.get(n, "") for n in range(len(named)))


def _ome(file: "tifffile.TiffFile") -> tuple[str, ...]:
    channels = _parsed(file.ome_metadata or "", "Channel") if file.is_ome else []
    return tuple(channel.get("Name", "") for channel in channels)


def _parsed(text: str, name: str) -> list[ElementTree.Element]:
    """Elements of a name, in any namespace, of XML in the first image; none if it is not XML."""
    try:
        root = ElementTree.fromstring(text.strip("\0 \n"))
    except (ElementTree.ParseError, ValueError):
        return []
    tag_of = lambda element: str(element.tag).rpartition("}")[2]
    first = next((one for one in root if tag_of(one) == "Image"), root)
    return [one for one in first.iter() if tag_of(one) == name]


def _imagej(file: "tifffile.TiffFile") -> tuple[str, ...]:
    metadata = file.imagej_metadata if file.is_imagej else None
    return _texts((metadata or {}).get("Labels"))


def _json(file: "tifffile.TiffFile") -> tuple[str, ...]:
    try:
        content = json.loads(file.pages[0].description)
    except ValueError:
        return ()
    if isinstance(content, dict):
        return next((names for key in _KEYS if (names := _texts(content.get(key)))), ())
    return _texts(content)


def _pages(file: "tifffile.TiffFile", count: int) -> tuple[str, ...]:
    if len(file.pages) != count or file.is_ome or file.is_imagej:
        return ()
    names = tuple(page.description.strip() for page in file.pages)  # tifffile's own start with {
    plain = all("\n" not in name and len(name) < 100 and name[:1] != "{" for name in names)
    return names if plain and len(set(names)) == count else ()


def _texts(value: Any) -> tuple[str, ...]:
    """A list of texts, else ()."""
    is_list = isinstance(value, list) and all(isinstance(one, str) for one in value)
    return tuple(one.strip() for one in value) if is_list else ()
