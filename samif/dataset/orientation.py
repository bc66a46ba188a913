"""EXIF orientation: how stored pixels are turned or mirrored to be upright (EXIF 2.32, table "Orientation")."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile

UPRIGHT = 1

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Orientation -> what turns the stored pixels upright; no entry where nothing is to be done."""

_SWAPPING = (5, 6, 7, 8)


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """What turns the pixels that Pillow gives upright. It turns those of TIFF itself."""
    return None if isinstance(image, TiffImageFile) else TURNS.get(orientation_of(image))


def orientation_of(image: Image.Image) -> int:
    """Orientation 1 to 8 of a file that is open but not loaded; 1 where there is none, or the EXIF block is damaged."""
    try:
        if isinstance(image, TiffImageFile):
            found = int(image.tag_v2.get(ExifTags.Base.Orientation, UPRIGHT))
        else:
            # PNG's own getexif decodes the whole image to look behind the pixels: use the plain one.
            found = int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, UPRIGHT))
    except Exception:  # a broken EXIF block may raise anything, and must not cost the image
        return UPRIGHT
    return found if found in TURNS else UPRIGHT


def sizes_of(image: Image.Image) -> tuple[tuple[int, int], tuple[int, int]]:
    """(width, height) upright and as stored, of a file that is open but not loaded."""
    swapped = (image.height, image.width)
    if orientation_of(image) not in _SWAPPING:
        return image.size, image.size
    return (image.size, swapped) if isinstance(image, TiffImageFile) else (swapped, image.size)


def turn_mask(mask: npt.NDArray[np.bool_], orientation: int) -> npt.NDArray[np.bool_]:
    """A mask (H, W) of the stored pixels as one of the upright image, (W, H) for orientations 5 to 8."""
    turn = TURNS.get(orientation)
    return mask if turn is None else np.array(Image.fromarray(mask).transpose(turn))
