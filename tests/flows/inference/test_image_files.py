"""Which files of folders and paths are images, and what is passed over by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from flows.inference.image_files import FoundImages, find_images
from samif.errors import SamifError

APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(4000)


def draw(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), (200, 30, 30)).save(path)
    return path


def skipped(found: FoundImages, root: Path) -> dict[str, str]:
    return {item.path.relative_to(root).as_posix(): item.reason for item in found.skipped}


def test_a_folder_stands_for_its_images(tmp_path: Path) -> None:
    b, a = draw(tmp_path / "line" / "b.png"), draw(tmp_path / "line" / "a.JPG")
    (tmp_path / "line" / "notes.txt").write_text("no image")
    extra = draw(tmp_path / "c.bmp")
    found = find_images([extra, tmp_path / "line"])
    assert found.paths == [extra, a, b]
    assert [(image.name, image.named) for image in found.images] == [
        ("c.bmp", True),
        ("a.JPG", False),
        ("b.png", False),
    ]
    assert skipped(found, tmp_path) == {"line/notes.txt": "no image by the extension"}


@pytest.mark.parametrize(
    "name",
    ["p.jfif", "p.jpe", "p.JPEG", "p.gif", "p.avif", "p.jp2", "p.ppm", "p.heic", "p.HEIC", "p.mpo", "p.tga", "p.qoi"],
)
def test_every_format_is_found(tmp_path: Path, name: str) -> None:
    path = draw(tmp_path / name)
    assert find_images([tmp_path]).paths == [path]


def test_files_of_a_mac_and_of_windows_are_passed_over_by_name(tmp_path: Path) -> None:
    image = draw(tmp_path / "p1.jpg")
    for name in ("._p1.jpg", "._p2.heic", ".DS_Store", "Thumbs.db", "desktop.ini", "p1.overlay.jpg"):
        (tmp_path / name).write_bytes(APPLE_DOUBLE)
    found = find_images([tmp_path])
    assert found.paths == [image]
    assert skipped(found, tmp_path) == {
        "._p1.jpg": "hidden", "._p2.heic": "hidden", ".DS_Store": "hidden", "Thumbs.db": "no image by the extension",
        "desktop.ini": "no image by the extension", "p1.overlay.jpg": "overlay of an earlier prediction",
    }  # fmt: skip


def test_sub_folders_on_request(tmp_path: Path) -> None:
    top, deep = draw(tmp_path / "p1.jpg"), draw(tmp_path / "shift 2" / "cam#1" / "p1.jpg")
    draw(tmp_path / ".thumbnails" / "p1.jpg")
    found = find_images([tmp_path])
    assert found.paths == [top] and skipped(found, tmp_path) == {".thumbnails": "hidden", "shift 2": "sub-folder"}
    found = find_images([tmp_path], recursive=True)
    assert found.paths == [top, deep] and skipped(found, tmp_path) == {".thumbnails": "hidden"}
    assert [image.name for image in found.images] == ["p1.jpg", "shift 2/cam#1/p1.jpg"]


def test_links(tmp_path: Path) -> None:
    image = draw(tmp_path / "cache" / "3f" / "aa.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").symlink_to(image)
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "nothing.png")
    found = find_images([tmp_path / "in"])
    assert found.paths == [tmp_path / "in" / "a.png"] and skipped(found, tmp_path) == {"in/gone.png": "link to nothing"}


def test_a_place_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(SamifError, match=r"no image in .*; give another folder"):
        find_images([tmp_path])
    draw(tmp_path / "sub" / "a.png")
    with pytest.raises(SamifError, match="give --recursive to look into sub-folders"):
        find_images([tmp_path])
    with pytest.raises(SamifError, match=r"gone\.png does not exist"):
        find_images([tmp_path / "gone.png"])
