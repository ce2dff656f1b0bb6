"""The header of a JPEG file: its segments, walked by their lengths (ITU-T T.81, annex B)."""

from collections.abc import Iterator

_APP1, _START_OF_SCAN, _END = 0xE1, 0xDA, 0xD9
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length: TEM, RST0 to RST7, SOI


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Segments before the first scan, the thumbnails, profiles and comments inside them unread.

    Args:
        data: of a file. Bytes between segments that belong to none are skipped, as Pillow does.

    Yields:
        (second byte of the marker, where its content starts, where it ends).
    """
    place = 2
    while (place := data.find(b"\xff", place)) >= 0 and place + 4 <= len(data):
        marker = data[place + 1]
        if marker in (0x00, 0xFF):  # a byte of data, a fill byte
            place += 1 if marker else 2
            continue
        if marker in (_START_OF_SCAN, _END):
            return
        place += 2
        if marker not in _ALONE:
            end = place + max(2, int.from_bytes(data[place : place + 2], "big"))
            yield marker, place + 2, end
            place = end


def names_orientation(data: bytes) -> bool:
    """Whether the header may ask for the image to be turned: it holds Exif, or XMP that names an
    orientation.
    """
    return any(
        marker == _APP1
        and (data.startswith(b"Exif\0\0", start) or data.find(b"tiff:Orientation", start, end) >= 0)
        for marker, start, end in segments(data)
    )
