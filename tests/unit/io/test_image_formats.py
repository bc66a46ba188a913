"""Every image format that can be read, each file written here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from samif.dataset.images import ImageError, inspect_image, read_image
from samif.io.image_formats import FORMATS, is_image_name

RED, BLUE = (230, 20, 20), (20, 20, 230)
HEIC = (".heic", ".heif", ".HEIC", ".hif")
EXTENSIONS = (
    ".jpg", ".JPG", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".tif", ".tiff", ".bmp", ".dib", ".gif",
    ".webp", ".avif", ".jp2", ".j2k", ".ppm", ".pnm", ".tga", ".pcx", ".dds", ".sgi", ".qoi", ".ico", *HEIC,
)  # fmt: skip


def scene(size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Red, with a blue upper left quarter."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (0, 0, size[0] // 2, size[1] // 2))
    return image


def saved(path: Path, **options: object) -> Path:
    if path.suffix.lower() == ".ico":
        options |= {"sizes": [(64, 48)]}
    scene().save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_format_is_read(tmp_path: Path, extension: str) -> None:
    path = saved(tmp_path / f"part{extension}")
    pixels = read_image(path)
    assert is_image_name(path.name) and pixels.shape == (48, 64, 3)
    assert np.abs(pixels[4, 4].astype(int) - BLUE).max() < 40 and np.abs(pixels[40, 60].astype(int) - RED).max() < 40
    assert inspect_image(path).size == (64, 48)


@pytest.mark.parametrize("extension", HEIC)
def test_heic_is_recognised_by_its_content(tmp_path: Path, extension: str) -> None:
    path = saved(tmp_path / f"part{extension}").rename(tmp_path / "part.jpg")
    assert "HEIF" in FORMATS and read_image(path).shape == (48, 64, 3)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_heic_of_a_turned_camera_is_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    scene().save(tmp_path / "turned.jpg", exif=exif)
    scene().save(tmp_path / "turned.heic", exif=exif.tobytes())
    jpeg, heic = read_image(tmp_path / "turned.jpg"), read_image(tmp_path / "turned.heic")
    assert jpeg.shape == heic.shape and np.abs(jpeg.astype(int) - heic).mean() < 8
    assert inspect_image(tmp_path / "turned.heic").size == (heic.shape[1], heic.shape[0])


def test_ten_bit_heic_is_read(tmp_path: Path) -> None:
    wide = (np.asarray(scene()).astype(np.uint16) << 8).tobytes()
    pillow_heif.encode("RGB;16", (64, 48), wide, str(tmp_path / "ten.heic"))
    assert np.abs(read_image(tmp_path / "ten.heic")[4, 4].astype(int) - BLUE).max() < 40


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.95])
def test_damaged_heic_is_refused_in_one_sentence(tmp_path: Path, share: float) -> None:
    path = saved(tmp_path / "part.heic")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ImageError, match=r"part\.heic") as refusal:
        inspect_image(path)
    assert "\n" not in str(refusal.value)


def test_a_format_without_a_signature_needs_its_extension(tmp_path: Path) -> None:
    path = saved(tmp_path / "part.tga")
    assert read_image(path).shape == (48, 64, 3)
    with pytest.raises(ImageError, match="not an image in a known format"):
        read_image(path.rename(tmp_path / "part.jpg"))


@pytest.mark.parametrize("name", ["a.eps", "a.ps", "a.wmf", "a.h5", "a.pdf", "a.mpg", "a.json", "Thumbs.db", "jpg"])
def test_names_of_other_files(name: str) -> None:
    assert not is_image_name(name)


def test_postscript_is_not_run(tmp_path: Path) -> None:
    for name in ("a.eps", "a.png"):
        (tmp_path / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
        with pytest.raises(ImageError, match="not an image in a known format"):
            read_image(tmp_path / name)
