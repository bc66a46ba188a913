"""Broken and odd image files among good ones: the broken are named with a reason, the rest is embedded."""

from __future__ import annotations

import io
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, PngImagePlugin

from flows.embedding.flow import embed_images
from flows.store import EmbeddingReader, open_store
from samif.config import EmbedParams, EncoderParams
from samif.dataset.images import ImageError, image_sha256
from samif.sam.zoo import load_sam
from tests.support.unprivileged import unprivileged_folder

Make = Callable[[Path], object]


def photo(seed: int = 0, size: tuple[int, int] = (48, 32)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def coded(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    (image or photo()).save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def written(content: bytes) -> Make:
    return lambda path: path.write_bytes(content)


def cut(kind: str, share: float = 0.6, **options: object) -> Make:
    content = coded(kind, **options)
    return written(content[: int(len(content) * share)])


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in ((b"IHDR", header), *chunks, (b"IEND", b"")))


def jpeg_of_size(width: int, height: int) -> bytes:
    """A JPEG whose header claims another size than its pixels have."""
    content = bytearray(coded("JPEG"))
    start = content.index(b"\xff\xc0") + 5
    content[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def lying_bmp() -> bytes:
    content = bytearray(coded("BMP"))
    content[18:26] = struct.pack("<ii", 4000, 4000)
    return bytes(content)


def damaged_png() -> bytes:
    content = bytearray(coded("PNG"))
    content[content.index(b"IDAT") + 40] ^= 1
    return bytes(content)


def text_bomb() -> bytes:
    return png(1, 1, (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80_000_000))), (b"IDAT", zlib.compress(bytes(4))))


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("a.txt", "a" * 1000)
    return file.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def forbidden(path: Path) -> None:
    photo(1).save(path, "PNG")
    path.chmod(0)


KNOWN_FORMAT = "is not an image in a known format"
DAMAGED = r"cannot be decoded \(.+\), it is damaged"
TOO_LARGE = "has .* pixels, the limit is 200 million"

BROKEN: dict[str, tuple[Make, str]] = {
    "zero bytes.jpg": (written(b""), r"is empty \(0 bytes\)"),
    "text.jpg": (written(b"image of a gear\n"), KNOWN_FORMAT),
    "error page.jpg": (written(b"<!DOCTYPE html><title>502 Bad Gateway</title>"), KNOWN_FORMAT),
    "drawing.svg.png": (written(b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"/>'), KNOWN_FORMAT),
    "page.pdf.jpg": (written(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"), KNOWN_FORMAT),
    "program.eps.png": (written(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"), KNOWN_FORMAT),
    "archive.zip.jpg": (written(archive()), KNOWN_FORMAT),
    "icon.ico.png": (written(coded("ICO", sizes=[(16, 16)])), KNOWN_FORMAT),
    "hole in the disk.jpg": (written(bytes(4096)), KNOWN_FORMAT),
    "start of a header.jpg": (written(coded("JPEG")[:2]), KNOWN_FORMAT),
    "cut.jpg": (cut("JPEG"), DAMAGED),
    "cut progressive.jpg": (cut("JPEG", progressive=True), DAMAGED),
    "cut.png": (cut("PNG"), DAMAGED),
    "cut.gif": (cut("GIF"), DAMAGED),
    "cut.webp": (cut("WEBP"), f"{DAMAGED}|{KNOWN_FORMAT}"),
    "cut.bmp": (cut("BMP"), DAMAGED),
    "cut.jp2": (cut("JPEG2000"), DAMAGED),
    "cut.avif": (cut("AVIF"), f"{DAMAGED}|{KNOWN_FORMAT}"),
    "cut.ppm": (cut("PPM"), DAMAGED),
    "cut lzw.tif": (cut("TIFF", compression="tiff_lzw"), f"{DAMAGED}|{KNOWN_FORMAT}"),
    "bad checksum.png": (written(damaged_png()), DAMAGED),
    "lying size.bmp": (written(lying_bmp()), DAMAGED),
    "60,000 x 60,000.png": (written(png(60_000, 60_000)), TOO_LARGE),
    "60,000 x 60,000.jpg": (written(jpeg_of_size(60_000, 60_000)), TOO_LARGE),
    "strip.png": (written(coded("PNG", photo(size=(5000, 1)))), "is a strip of 5000 x 1 pixels"),
    "no pixels.png": (written(png(40, 30)), DAMAGED),
    "text bomb.png": (written(text_bomb()), f"{DAMAGED}|{KNOWN_FORMAT}"),
    "pixel bomb.png": (written(png(50_000, 50_000, (b"IDAT", zlib.compress(bytes(10**7))))), TOO_LARGE),
    "folder.jpg": (Path.mkdir, "is a folder, not an image"),
    "pipe.jpg": (os.mkfifo, "is a pipe or a device, not a file"),
    "link to nothing.jpg": (lambda path: path.symlink_to("nothing"), "is a link to nothing, which does not exist"),
    "link to itself.jpg": (lambda path: path.symlink_to(path), "is a link that leads back to itself"),
    "forbidden.png": (forbidden, "may not be read"),
    "vanished.png": (photo(2).save, "does not exist"),
    "changed.png": (photo(3).save, "has changed since it was indexed"),
}

PROFILE = b"no colour profile at all"

ODD: dict[str, Make] = {
    "cmyk.jpg": written(coded("JPEG", photo().convert("CMYK"))),
    "grey.jpg": written(coded("JPEG", photo().convert("L"))),
    "progressive.jpg": written(coded("JPEG", progressive=True)),
    "trailing garbage.jpg": written(coded("JPEG") + b"\0 leftovers of the camera"),
    "broken exif.jpg": written(coded("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")),
    "broken profile.jpg": written(coded("JPEG", icc_profile=PROFILE)),
    "two images.jpg": written(coded("MPO", save_all=True, append_images=[photo(1)])),
    "png in truth.jpg": written(coded("PNG", photo(4))),
    "16 bit.png": written(coded("PNG", Image.fromarray(np.arange(1024, dtype=np.uint16).reshape(32, 32) * 64))),
    "1 bit.png": written(coded("PNG", photo().convert("1"))),
    "palette.png": written(coded("PNG", photo().convert("P"), transparency=0)),
    "half transparent.png": written(coded("PNG", photo().convert("LA"))),
    "broken profile.png": written(coded("PNG", icc_profile=PROFILE)),
    "animated.png": written(coded("PNG", save_all=True, append_images=[photo(1)])),
    "1 x 1.png": written(coded("PNG", photo(size=(1, 1)))),
    "200 x 1.png": written(coded("PNG", photo(size=(200, 1)))),
    "animated.gif": written(coded("GIF", save_all=True, append_images=[photo(1)])),
    "animated.webp": written(coded("WEBP", save_all=True, append_images=[photo(1)])),
    "pages.tif": written(coded("TIFF", save_all=True, append_images=[photo(1)])),
    "real numbers.tif": written(coded("TIFF", Image.fromarray(np.eye(32, dtype=np.float32)))),
    "lzw.tif": written(coded("TIFF", compression="tiff_lzw")),
    "image.jp2": written(coded("JPEG2000")),
    "image.avif": written(coded("AVIF")),
    "image.bmp": written(coded("BMP")),
    "image.pgm": written(coded("PPM", photo().convert("L"))),
    "commented.png": written(coded("PNG", photo(5), pnginfo=PngImagePlugin.PngInfo())),
    "Übergröße\n.PNG": written(coded("PNG", photo(6))),
    # Its data end with a proper mark, too early: libjpeg fills the rest with grey and does not tell.
    "lying size.jpg": written(jpeg_of_size(400, 400)),
    "link.jpg": lambda path: path.symlink_to("good 1.png"),
    **{f"turned {turn}.jpg": written(coded("JPEG", exif=turned(turn))) for turn in (3, 6, 8)},
    **{f"good {number}.png": photo(10 + number).save for number in range(4)},
}


def test_broken_images_are_named_and_the_rest_is_embedded() -> None:
    assert len(BROKEN) >= 30
    load_sam("tiny")  # imports what somebody else may not read
    with unprivileged_folder() as root:
        folder = root / "images"
        folder.mkdir()
        for file, make in {**{file: make for file, (make, _) in BROKEN.items()}, **ODD}.items():
            make(folder / file)
        images = [(folder / file, content(folder / file)) for file in (*BROKEN, *ODD)]
        (folder / "vanished.png").unlink()
        photo(99).save(folder / "changed.png")
        store = open_store("store", root)
        embedded = embed_images(images, EmbedParams(shard_images=len(images)), EncoderParams(), store)
        read = EmbeddingReader(store, embedded.manifest).read(embedded.manifest.images)
    reasons = {image.path.name: image.reason for image in embedded.quarantined}
    assert sorted(reasons) == sorted(BROKEN)
    wrong = {file: reasons[file] for file, (_, reason) in BROKEN.items() if not re.match(reason, reasons[file])}
    assert wrong == {}
    assert all(image.remedy for image in embedded.quarantined)
    assert set(embedded.manifest.images) == {sha256 for path, sha256 in images if path.name in ODD}
    assert torch.isfinite(read).all()


def content(path: Path) -> str:
    """SHA-256 of what can be read, and of the name of what cannot."""
    try:
        return image_sha256(path)
    except ImageError:
        return sha256(path.name.encode()).hexdigest()
