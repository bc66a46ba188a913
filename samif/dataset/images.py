"""Image files as upright 8-bit RGB arrays, and facts from their headers.

Shape legend: H, W are the height and width of the upright image in pixels.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from samif.dataset.orientation import UPRIGHT, orientation_of, sizes_of, turn_of
from samif.errors import DataError, OutOfMemory
from samif.io.image_formats import formats_of

MAX_PIXELS = 200_000_000
"""Images of more pixels are refused before anything is decoded."""

MAX_ASPECT = 200
"""Images whose longer side is more than so many times the shorter are refused: at the size that an encoder sees,
nothing would be left of the shorter."""

BACKDROP = (128, 128, 128)
"""What transparent pixels show: mid grey, on which neither dark nor light parts vanish."""

_OUT_OF_MEANS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors that are not the image's: this process has too many open files, or the machine is out of memory."""


class ImageError(DataError):
    """An image file that cannot be used: which, what is wrong, the remedy."""

    def __init__(self, path: Path, what: str, remedy: str) -> None:
        super().__init__(f"{path} {what}; {remedy}")
        self.what = what
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What `inspect_image` learns: upright size, size as stored before EXIF turns it, SHA-256 of the file, and the EXIF
    orientation."""

    size: tuple[int, int]
    stored_size: tuple[int, int]
    sha256: str
    orientation: int = UPRIGHT


def read_image(path: Path, max_pixels: int = MAX_PIXELS, sha256: str | None = None) -> npt.NDArray[np.uint8]:
    """Read an image, upright and in RGB.

    EXIF orientation is applied; colour profiles are ignored; of several frames or pages the first counts.
    Transparent pixels are laid over mid grey. 16-bit grey values are scaled by a fixed factor, so that
    images of one camera stay comparable: 4095 is white if no pixel is above it (a 12-bit camera),
    otherwise 65535. 32-bit and floating-point grey has no agreed white and is stretched from its least to
    its greatest value.

    Args:
        path: a file of a format in `samif.io.image_formats`.
        max_pixels: images above this are refused by their header.
        sha256: what the SHA-256 (hex) of the file's bytes must be; None takes any.

    Returns:
        (H, W, 3) uint8 RGB, upright, writable, C-contiguous.

    Raises:
        ImageError: the file is missing, unreadable, truncated, no image, too large, a strip, or not as expected.
    """
    with _opened(path) as file:
        if sha256 is not None and _digest(file) != sha256:
            raise ImageError(path, "has changed since it was indexed", "put the old image back or index it anew")
        with _decoder(path, file, max_pixels) as image:
            return upright_rgb(image)


def upright_rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    """A PIL image as `read_image` gives it: (H, W, 3) uint8 RGB, upright, writable, C-contiguous."""
    turn = turn_of(image)
    rgb = _to_rgb(image)
    return np.array(rgb if turn is None else rgb.transpose(turn))


def read_small(path: Path, side: int) -> Image.Image:
    """An image for people, upright and in RGB, its longer side at most `side` pixels. A JPEG is decoded at a fraction
    of its size where that is enough.

    Raises:
        ImageError: as `read_image`.
    """
    with _opened(path) as file, _decoder(path, file, MAX_PIXELS) as image:
        image.draft("RGB", (side, side))
        small = Image.fromarray(upright_rgb(image))
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return small


def image_sha256(path: Path) -> str:
    """SHA-256 (hex) of the file's bytes: the identity of an image.

    Raises:
        ImageError: the file is missing or unreadable.
    """
    with _opened(path) as file:
        return _digest(file)


def inspect_image(path: Path) -> ImageFacts:
    """Decode the whole file once, as cheaply as its format allows, and return its facts.

    A JPEG is decoded at an eighth of its size, which still reads every byte, so that truncation shows.

    Raises:
        ImageError: as `read_image`.
    """
    with _opened(path) as file:
        with _decoder(path, file, MAX_PIXELS) as image:
            orientation, (upright, stored) = orientation_of(image), sizes_of(image)
            image.draft(None, (max(stored[0] // 8, 1), max(stored[1] // 8, 1)))
            _to_rgb(image)
        return ImageFacts(upright, upright if stored == upright else stored, _digest(file), orientation)


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    """The file for reading, once: what is hashed and what is decoded are the same bytes, whatever happens to the name.

    Whatever goes wrong inside is turned into one sentence that names the file.
    """
    with _named_errors(path), open(path, "rb", opener=_without_waiting) as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise ImageError(path, "is a pipe or a device, not a file", "name an image file")
        if facts.st_size == 0:
            raise ImageError(path, "is empty (0 bytes)", "copy the image again or take it out of the annotations")
        yield file


def _without_waiting(path: str, flags: int) -> int:
    """Opening a pipe would otherwise wait for somebody to write into it."""
    return os.open(path, flags | os.O_NONBLOCK)


@contextmanager
def _decoder(path: Path, file: BufferedReader, max_pixels: int) -> Iterator[Image.Image]:
    # Pillow has a guard of its own, below ours: raise it, or it refuses images that we accept.
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels
    file.seek(0)
    with Image.open(file, formats=formats_of(path)) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise _too_large(path, f"{width} x {height} pixels", max_pixels)
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise ImageError(
                path, f"is a strip of {width} x {height} pixels, the limit is {MAX_ASPECT} to 1", "cut it into pieces"
            )
        yield image


def _digest(file: BufferedReader) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Turn whatever reading `path` raises into one sentence that names it."""
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError:
        if path.is_symlink():
            raise ImageError(
                path,
                f"is a link to {os.readlink(path)}, which does not exist",
                "put the file back ('dvc checkout' does, where the link leads into DVC's cache)",
            ) from None
        raise ImageError(path, "does not exist", "copy the image there or correct its file name") from None
    except PermissionError:
        raise ImageError(path, "may not be read", "give this user the right to read it") from None
    except IsADirectoryError:
        raise ImageError(path, "is a folder, not an image", "name an image file") from None
    except UnidentifiedImageError:
        raise ImageError(path, "is not an image in a known format", "save it as JPEG or PNG") from None
    except Image.DecompressionBombError:
        raise _too_large(path, "far too many pixels", MAX_PIXELS) from None
    except Exception as error:  # decoders of damaged files raise a dozen kinds: struct, zlib, OS, ...
        if isinstance(error, OSError) and error.errno in _OUT_OF_MEANS:
            raise OutOfMemory(
                f"{path} cannot be read now ({error.strerror}); close what holds files or memory, then try again"
            ) from None
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            raise ImageError(path, "is a link that leads back to itself", "put the file in its place") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(
            path,
            f"cannot be decoded ({reason}), it is damaged, cut short or of an unusual kind",
            "copy it again from its origin or save it as an RGB JPEG or PNG",
        ) from None


def _too_large(path: Path, size: str, max_pixels: int) -> ImageError:
    return ImageError(path, f"has {size}, the limit is {max_pixels / 1e6:g} million", "make it smaller or cut it")


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        white = 4095 if values.max(initial=0) <= 4095 else 65535
        return _grey(values * (255.0 / white))
    if image.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        low, high = values.min(), values.max()
        return _grey((values - low) * (255.0 / (high - low) if high > low else 0.0))
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        backdrop = Image.new("RGBA", image.size, (*BACKDROP, 255))
        return Image.alpha_composite(backdrop, coloured).convert("RGB")
    return image.convert("RGB")


def _grey(values: npt.NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.rint(values).astype(np.uint8)).convert("RGB")
