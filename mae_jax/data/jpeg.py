"""The header of a JPEG file: its segments, walked by their lengths (ITU-T T.81, annex B)."""

_APP1, _START_OF_SCAN, _END = 0xE1, 0xDA, 0xD9
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length: TEM, RST0 to RST7, SOI


def names_orientation(data: bytes) -> bool:
    """Whether the header may ask for the image to be turned: it holds Exif, or XMP that names an
    orientation. What is inside other segments (thumbnails, profiles, comments) is not looked at.

    Args:
        data: of a file. Bytes between segments that belong to none are skipped, as Pillow does.
    """
    place, last = 2, len(data) - 4
    while 0 <= place <= last:
        if data[place] != 0xFF:
            place = data.find(b"\xff", place)
            continue
        marker = data[place + 1]
        if marker in (_START_OF_SCAN, _END):
            return False
        if marker == 0xFF:  # a fill byte
            place += 1
        elif marker == 0x00 or marker in _ALONE:
            place += 2
        else:
            end = place + 2 + (data[place + 2] << 8 | data[place + 3])
            if marker == _APP1 and (
                data.startswith(b"Exif\0\0", place + 4)
                or data.find(b"tiff:Orientation", place + 4, end) >= 0
            ):
                return True
            place = max(end, place + 4)
    return False
