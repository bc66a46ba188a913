"""`samif store add`: images without labels into a store, broken ones listed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from flows.cli import store_add  # noqa: F401  (registers the command)
from flows.cli.app import app
from samif.errors import SamifError


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three good images, two of them the same, an empty file and one that is no image."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg"):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(folder / name)
    (folder / "copy of a.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "empty.jpg").touch()
    (folder / "page.png").write_text("<html>")
    (folder / "notes.txt").write_text("not an image by its name: left alone")
    monkeypatch.chdir(tmp_path)
    return folder


def add(*words: str) -> Result:
    return CliRunner().invoke(app, ["store", "add", *words])


def test_good_images_are_added_once_and_broken_ones_listed(photos: Path) -> None:
    first = json.loads(add("photos", "--store", "store", "--json").stdout)
    assert first["store"] == str(photos.parent / "store")
    assert first["encoder"]["name"] == "tiny"
    assert (first["files"], first["images"], first["computed"]) == (5, 2, 2)
    assert [(Path(q["path"]).name, q["reason"]) for q in first["quarantined"]] == [
        ("empty.jpg", "is empty (0 bytes)"),
        ("page.png", "is not an image in a known format"),
    ]
    again = add("photos", "--store", "store")
    assert again.exit_code == 0
    assert "photos/empty.jpg" in again.stdout
    assert "0 of them computed now; 2 files left out" in again.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["photos/empty.jpg", "--store", "store"], ["none of 1 files can be used", "empty.jpg", "copy the image"]),
        (["photos"], ["there is no params.yaml", "--store"]),
        (["photos", "--store", "store", "--encoder", "vit_x"], ["there is no encoder 'vit_x'", "vit_b"]),
        (["elsewhere", "--store", "store"], ["elsewhere does not exist"]),
    ],
)
def test_refusals(photos: Path, words: list[str], said: list[str]) -> None:
    refused = add(*words).exception
    assert isinstance(refused, SamifError)
    assert [word for word in said if word not in str(refused)] == []
    assert not (photos.parent / "store").exists()
