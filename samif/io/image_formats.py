"""Image formats that can be read: those that Pillow decodes itself, and HEIC through pillow-heif, which is registered
here for every module that opens images."""

from __future__ import annotations

from pathlib import PurePath

from PIL import Image
from pillow_heif import register_heif_opener

register_heif_opener(thumbnails=False)

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "AVIF", "PPM", "JPEG2000", "HEIF")
"""Formats that are recognised by a file's content, whatever its name."""

_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2", "HEIF": ".heic"}
"""Extensions that are not the format's name."""
_NOT_DECODED = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
"""Formats that Pillow hands to outside programs, or only identifies."""


def formats_of(path: PurePath) -> tuple[str, ...]:
    """Formats to try for a file: `FORMATS`, and the one of its extension. The content of some formats, such as TGA,
    has no signature, so that damaged files of others would be taken for them."""
    named = _format_of(path)
    return FORMATS if named is None or named in FORMATS else (*FORMATS, named)


def suffix_of(format_: str | None) -> str:
    """The usual extension, such as `.jpg`, of a format of `FORMATS` as Pillow names it."""
    return _SUFFIXES.get(format_ or "", f".{(format_ or 'png').lower()}")


def is_image_name(name: str | PurePath) -> bool:
    """Whether a file name has the extension of a format that can be read."""
    return _format_of(PurePath(name)) is not None


def _format_of(path: PurePath) -> str | None:
    named = Image.registered_extensions().get(path.suffix.lower())
    if named == "MPO":  # Pillow opens it as a JPEG
        return "JPEG"
    return named if named in Image.OPEN and named not in _NOT_DECODED else None
