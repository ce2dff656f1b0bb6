"""Parses the segments in the header of a JPEG file (ITU-T T.81, annex B)."""

_APP1, _START_OF_SCAN, _END = 0xE1, 0xDA, 0xD9
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length: TEM, RST0 to RST7, SOI


def names_orientation(data: bytes) -> bool:
    """Whether the header may hold an orientation: it has Exif, or XMP with an orientation. Other
    segments (thumbnails, profiles, comments) are not searched.

    Args:
        data: bytes of the file. Stray bytes between segments are skipped, as in Pillow.
    """
    start, last = 2, len(data) - 4
    while 0 <= start <= last:
        if data[start] != 0xFF:
            start = data.find(b"\xff", start)
            continue
        marker = data[start + 1]
        if marker in (_START_OF_SCAN, _END):
            return False
        if marker == 0xFF:  # a fill byte
            start += 1
        elif marker == 0x00 or marker in _ALONE:
            start += 2
        else:
            end = start + 2 + (data[start + 2] << 8 | data[start + 3])
            if marker == _APP1 and (
                data.startswith(b"Exif\0\0", start + 4)
                or data.find(b"tiff:Orientation", start + 4, end) >= 0
            ):
                return True
            start = max(end, start + 4)
    return False
