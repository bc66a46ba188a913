"""Every kind of image file comes out as upright RGB, or is refused in one sentence."""

from __future__ import annotations

import hashlib
import os
import resource
import struct
import zlib
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samif.dataset.images import ImageError, image_sha256, inspect_image, read_image
from samif.errors import SamifError
from tests.support.unprivileged import unprivileged_folder

MARK = (250, 10, 10)


def marked(width: int = 40, height: int = 24) -> Image.Image:
    """Black with a red block in the upper left corner."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:8, :8] = MARK
    return Image.fromarray(pixels)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def oriented(path: Path, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(marked(), path, exif=exif)


# Where the block stands after turning: EXIF 2.32, table "Orientation", row 0 / column 0 of the stored image.
CORNERS = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize(("orientation", "corner"), CORNERS.items())
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int, corner: str) -> None:
    path = oriented(tmp_path / f"a.{suffix}", orientation)
    rgb = read_image(path)
    size = (24, 40) if orientation >= 5 else (40, 24)
    assert rgb.shape == (size[1], size[0], 3)
    assert inspect_image(path).size == size
    y, x = {"tl": (2, 2), "tr": (2, -3), "bl": (-3, 2), "br": (-3, -3)}[corner]
    assert rgb[y, x, 0] > 180
    assert (rgb[..., 0] > 128).sum() == pytest.approx(64, abs=12)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientation_that_does_not_exist_is_ignored(tmp_path: Path, orientation: int) -> None:
    assert read_image(oriented(tmp_path / "a.png", orientation)).shape == (24, 40, 3)


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM"])
def test_broken_exif_does_not_cost_the_image(tmp_path: Path, exif: bytes) -> None:
    path = save(marked(), tmp_path / "a.jpg", exif=exif)
    assert read_image(path).shape == (24, 40, 3)
    assert inspect_image(path).size == (40, 24)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_odd_colour_profile_is_ignored(tmp_path: Path, suffix: str) -> None:
    path = save(marked(), tmp_path / f"a.{suffix}", icc_profile=b"no profile at all")
    assert read_image(path)[2, 2, 0] > 180


def grey(values: list[int], mode: str = "I;16") -> Image.Image:
    array = np.array([values], np.uint16)
    return Image.frombytes(mode, (len(values), 1), array.astype(">u2" if mode == "I;16B" else "<u2").tobytes())


@pytest.mark.parametrize(
    ("image", "suffix", "expected"),
    [
        (Image.fromarray(np.array([[0, 100, 255]], np.uint8)), "png", [0, 100, 255]),
        (Image.fromarray(np.array([[False, True]])), "png", [0, 255]),
        (grey([0, 2048, 4095]), "png", [0, 128, 255]),  # nothing above 12 bits: 4095 is white
        (grey([0, 2048, 4096]), "png", [0, 8, 16]),  # one step more: 65535 is white
        (grey([0, 32768, 65535]), "png", [0, 128, 255]),
        (grey([0, 32768, 65535]), "tif", [0, 128, 255]),
        (grey([0, 32768, 65535], "I;16B"), "tif", [0, 128, 255]),
        (grey([7, 7]), "png", [0, 0]),
        (Image.fromarray(np.array([[-5, 0, 5]], np.int32)), "tif", [0, 128, 255]),
        (Image.fromarray(np.array([[0.25, 0.5, 0.75]], np.float32)), "tif", [0, 128, 255]),
        (Image.fromarray(np.array([[np.nan, np.inf, 1.0]], np.float32)), "tif", [0, 0, 255]),
        (Image.fromarray(np.array([[2.0, 2.0]], np.float32)), "tif", [0, 0]),
    ],
)
def test_grey_of_every_depth(tmp_path: Path, image: Image.Image, suffix: str, expected: list[int]) -> None:
    rgb = read_image(save(image, tmp_path / f"a.{suffix}"))
    assert rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb, np.repeat(np.array([expected])[..., None], 3, axis=2))


def palette_with_hole() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 200, 0])
    image.putpixel((1, 0), 1)
    image.info["transparency"] = 1
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(np.array([[[200, 0, 0, 255], [9, 9, 9, 0]]], np.uint8)), [(200, 0, 0), (128, 128, 128)]),
        (Image.fromarray(np.array([[[200, 255], [9, 0]]], np.uint8)), [(200, 200, 200), (128, 128, 128)]),
        (Image.fromarray(np.array([[[0, 0, 0, 51]]], np.uint8)), [(102, 102, 102)]),
        (palette_with_hole(), [(200, 0, 0), (128, 128, 128)]),
    ],
    ids=["RGBA", "LA", "half", "P"],
)
def test_transparency_shows_mid_grey(tmp_path: Path, image: Image.Image, expected: list[tuple[int, int, int]]) -> None:
    np.testing.assert_allclose(read_image(save(image, tmp_path / "a.png")), [expected], atol=1)


@pytest.mark.parametrize(("mode", "suffix"), [("CMYK", "jpg"), ("CMYK", "tif"), ("YCbCr", "jpg"), ("P", "gif")])
def test_other_colour_models(tmp_path: Path, mode: str, suffix: str) -> None:
    path = save(marked().convert(mode), tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(read_image(path)[2, 2].astype(int), MARK, atol=20)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_first_of_several_frames(tmp_path: Path, suffix: str) -> None:
    other = Image.new("RGB", (40, 24), (0, 0, 255))
    path = save(marked(), tmp_path / f"a.{suffix}", save_all=True, append_images=[other])
    np.testing.assert_allclose(read_image(path)[3, 3].astype(int), MARK, atol=40)


def test_the_array_belongs_to_the_caller(tmp_path: Path) -> None:
    rgb = read_image(oriented(tmp_path / "a.png", 6))
    assert rgb.flags.c_contiguous
    assert rgb.flags.writeable


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("width", [20_001, 60_000])  # just above the limit, and above twice Pillow's own
def test_too_large_an_image_is_refused_by_its_header(tmp_path: Path, width: int) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(png_header(width, 10_000))
    for read in (read_image, inspect_image):
        with pytest.raises(ImageError, match=r"huge\.png has .* the limit is 200 million; make it smaller"):
            read(path)


@pytest.mark.parametrize(("size", "accepted"), [((200, 1), True), ((201, 1), False), ((2, 401), False)])
def test_a_strip_is_refused(tmp_path: Path, size: tuple[int, int], accepted: bool) -> None:
    path = save(Image.new("RGB", size), tmp_path / "a.png")
    for read in (read_image, inspect_image):
        with nullcontext() if accepted else pytest.raises(ImageError, match="is a strip of .* to 1; cut it"):
            read(path)


@pytest.mark.filterwarnings("error")
def test_an_image_at_the_limit_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(png_header(20_000, 10_000))
    with pytest.raises(ImageError, match="cannot be decoded"):  # the pixels are missing; the size is accepted
        inspect_image(path)


def test_the_limit_is_the_callers(tmp_path: Path) -> None:
    path = save(marked(), tmp_path / "a.png")
    assert read_image(path, max_pixels=960).shape == (24, 40, 3)
    with pytest.raises(SamifError, match="40 x 24"):
        read_image(path, max_pixels=959)


def noisy(path: Path) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    return save(Image.fromarray(noise), path).read_bytes()


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "webp", "tif", "jp2", "avif", "ppm"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_image_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut.{suffix}"
    data = noisy(path)
    path.write_bytes(data[: int(len(data) * share)])
    for read in (read_image, inspect_image):
        with pytest.raises(ImageError, match=rf"cut\.{suffix} .*; (copy|save)"):
            read(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "gif", "webp"])
def test_damage_never_escapes_as_anything_else(tmp_path: Path, suffix: str, seed: int) -> None:
    path = tmp_path / f"a.{suffix}"
    data = bytearray(noisy(path))
    rng = np.random.default_rng(seed)
    for position in rng.integers(0, min(len(data), 400), 12):
        data[position] = rng.integers(0, 256)
    path.write_bytes(data)
    for read in (read_image, inspect_image):
        with suppress(ImageError):
            read(path)


def test_refusals_name_the_file_and_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "script.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    expected = {
        "none.jpg": "does not exist; copy",
        "empty.jpg": "is empty .*; copy",
        "text.jpg": "is not an image in a known format; save",
        "folder.jpg": "is a folder, not an image; name",
        "script.eps": "is not an image in a known format; save",
        "a\0b.jpg": "cannot be decoded .*; copy",
        "x" * 300 + ".jpg": "cannot be decoded .*; copy",
    }
    for name, text in expected.items():
        for read in (read_image, inspect_image):
            with pytest.raises(ImageError, match=text) as caught:
                read(tmp_path / name)
            assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(SamifError, match="does not exist"):
        image_sha256(tmp_path / "none.jpg")


def test_a_file_without_the_right_to_read() -> None:
    with unprivileged_folder() as folder:
        closed, open_ = (save(marked(), folder / name) for name in ("closed.png", "open.png"))
        closed.chmod(0)
        for read in (read_image, inspect_image, image_sha256):
            read(open_)
            with pytest.raises(ImageError, match="may not be read; give this user"):
                read(closed)


def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for read in (read_image, inspect_image, image_sha256):
        with pytest.raises(ImageError, match="is a pipe or a device, not a file"):
            read(tmp_path / "pipe.jpg")


def test_other_bytes_than_the_expected_ones_are_refused(tmp_path: Path) -> None:
    path = save(marked(), tmp_path / "a.png")
    indexed = image_sha256(path)
    assert read_image(path, sha256=indexed).shape == (24, 40, 3)
    save(marked(41), path)
    with pytest.raises(ImageError, match="has changed since it was indexed; put the old image back"):
        read_image(path, sha256=indexed)


def test_want_of_file_handles_is_not_blamed_on_the_image(tmp_path: Path) -> None:
    path = save(marked(), tmp_path / "a.png")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(SamifError, match="cannot be read now") as caught:
            read_image(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not isinstance(caught.value, ImageError)


def test_facts(tmp_path: Path) -> None:
    path = oriented(tmp_path / "a.jpg", 6)
    facts = inspect_image(path)
    assert (facts.size, facts.stored_size) == ((24, 40), (40, 24))
    assert facts.sha256 == image_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
