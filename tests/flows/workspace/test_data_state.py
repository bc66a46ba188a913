"""The state of the data that a request names: every change of content shows, and unchanged files are not read."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.workspace import file_digests as module
from flows.workspace.data_state import data_sha256
from flows.workspace.file_digests import file_digests
from flows.workspace.init import init_workspace
from flows.workspace.layout import Layout
from flows.workspace.run_request import request_of
from samif.config import load_params
from samif.errors import DataError
from samif.io.hashing import file_sha256
from tests.flows.workspace.test_edit import coco


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace with two images, whose timestamps are a minute old."""
    root = tmp_path / "ws"
    init_workspace(root, coco(tmp_path / "data"), None, [("s1", ["hook"])], shots=5)
    for name in ("1.png", "2.png"):
        (tmp_path / "data" / "images" / name).write_bytes(name.encode())
    (tmp_path / "sam.pth").write_bytes(b"weights")
    text = (root / "params.yaml").read_text()
    assert text.count("checkpoint: null") == 1
    (root / "params.yaml").write_text(text.replace("checkpoint: null", f"checkpoint: {tmp_path / 'sam.pth'}"))
    return root


def state(root: Path) -> str:
    return data_sha256(Layout(root), load_params(root / "params.yaml"))


def _label(data: Path) -> None:
    text = (data / "annotations.json").read_text()
    changed = text.replace('"category_id": 1', '"category_id": 2', 1)
    assert len(changed) == len(text) and changed != text
    (data / "annotations.json").write_text(changed)


def _subfolder(data: Path) -> None:
    (data / "images" / "new").mkdir()
    (data / "images" / "new" / "1.png").write_bytes(b"1.png")


def _replace_in_place(data: Path) -> None:
    """Same name, size and modification time, as `rsync --inplace --times` leaves it."""
    image = data / "images" / "1.png"
    before = image.stat()
    image.write_bytes(b"3.png")
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], Any]] = {
    "an image more": lambda data: (data / "images" / "3.png").write_bytes(b"3.png"),
    "an image less": lambda data: (data / "images" / "2.png").unlink(),
    "an image under another name": lambda data: (data / "images" / "2.png").rename(data / "images" / "3.png"),
    "an image in a subfolder": _subfolder,
    "an image replaced under its name": lambda data: (data / "images" / "1.png").write_bytes(b"3.png"),
    "an image replaced, timestamps kept": _replace_in_place,
    "a label": _label,
    "no annotations": lambda data: (data / "annotations.json").unlink(),
    "a checkpoint replaced under its name": lambda data: (data.parent / "sam.pth").write_bytes(b"Weights"),
}


@pytest.mark.parametrize("granularity", [0, module.GRANULARITY_NS], ids=["cached", "too young to be cached"])
@pytest.mark.parametrize("case", CHANGES)
def test_a_change_makes_another_request(
    root: Path, tmp_path: Path, case: str, granularity: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRANULARITY_NS", granularity)
    time.sleep(0.02)  # longer than a tick of the file system's clock
    first = request_of(root, "ann")
    assert request_of(root, "bob", "another reason").digest == first.digest
    CHANGES[case](tmp_path / "data")
    assert request_of(root, "ann").digest != first.digest


def test_only_content_and_names_count(root: Path, tmp_path: Path) -> None:
    before = state(root)
    image = tmp_path / "data" / "images" / "1.png"
    os.utime(image, (0, 0))
    assert state(root) == before
    image.write_bytes(b"other")
    assert state(root) != before
    image.write_bytes(b"1.png")
    assert state(root) == before


def test_the_results_of_a_run_are_not_what_is_asked_for(root: Path) -> None:
    """Else the dvc.lock that a run leaves would make another request, and so would the commit of it."""
    first = request_of(root, "ann")
    (root / "dvc.lock").write_text("stages: {}\n")
    later = request_of(root, "ann")
    assert later.dvc_lock != first.dvc_lock and later.digest == first.digest
    assert first.model_copy(update={"commit": "abc+changes"}).digest == first.digest
    assert request_of(root, "ann", "", "an event").digest != first.digest  # an event is a wish of its own


def test_links_are_followed_once_and_folders_of_tools_are_no_data(root: Path, tmp_path: Path) -> None:
    images = tmp_path / "data" / "images"
    before = state(root)
    (images / ".git").mkdir()
    (images / ".git" / "index").write_bytes(b"changes all the time")
    (images / "again").symlink_to(images)
    (images / "nowhere.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(images / "pipe")
    assert state(root) == before
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "4.png").write_bytes(b"4.png")
    (images / "more").symlink_to(tmp_path / "more")
    linked = state(root)
    assert linked != before
    (tmp_path / "more" / "4.png").write_bytes(b"5.png")
    assert state(root) != linked
    (images / os.fsdecode(b"caf\xe9.png")).write_bytes(b"no UTF-8 name")
    assert len(state(root)) == 64


def test_of_tracked_data_that_are_not_here_the_dvc_file_counts(root: Path, tmp_path: Path) -> None:
    text = (root / "params.yaml").read_text()
    for name in ("images", "annotations.json"):
        text = text.replace(str(tmp_path / "data" / name), f"photos/{name}")
    (root / "params.yaml").write_text(text)
    missing = state(root)
    (root / "photos.dvc").write_text("outs: [{md5: a.dir, path: photos}]\n")
    tracked = state(root)
    (root / "photos.dvc").write_text("outs: [{md5: b.dir, path: photos}]\n")
    assert len({missing, tracked, state(root)}) == 3


# The cache


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read."""
    found: list[str] = []

    def read(path: Path) -> str:
        found.append(path.name)
        return file_sha256(path)

    monkeypatch.setattr(module, "file_sha256", read)
    return found


def old(path: Path, content: bytes) -> Path:
    """A file that was written a while ago, as far as the tests can make it so: its change time is now."""
    path.write_bytes(content)
    os.utime(path, (1e9, 1e9))
    return path


def test_a_file_is_read_again_only_after_a_change(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRANULARITY_NS", 0)
    files, cache = [old(tmp_path / name, name.encode()) for name in ("a", "b", "c")], tmp_path / "state" / "cache.db"
    time.sleep(0.02)
    first = file_digests(files, cache)
    assert first == {path: file_sha256(path) for path in files} and sorted(reads) == ["a", "b", "c"]
    assert file_digests(files, cache) == first and len(reads) == 3
    old(files[1], b"B")
    time.sleep(0.02)
    assert file_digests(files, cache)[files[1]] == file_sha256(files[1]) and reads[3:] == ["b"]
    files[2].unlink()
    assert file_digests(files, cache).keys() == set(files[:2]) and reads[4:] == []
    with sqlite3.connect(cache) as database:
        assert database.execute("select count(*) from files").fetchone() == (2,)


def test_a_file_that_changed_just_now_is_read_the_next_time_too(tmp_path: Path, reads: list[str]) -> None:
    """Within the granularity of its timestamps it could change again without a trace."""
    young = tmp_path / "young"
    young.write_bytes(b"1")
    for _ in range(2):
        file_digests([young], tmp_path / "cache.db")
    assert reads == ["young", "young"]


@pytest.mark.parametrize("content", [b"", b"no database" * 100])
def test_a_cache_that_cannot_be_used_costs_time_only(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache.db"
    cache.write_bytes(content)
    file = old(tmp_path / "a", b"a")
    with caplog.at_level(logging.WARNING):
        assert file_digests([file], cache) == {file: file_sha256(file)}
    assert ("cannot be used" in caplog.text) and "remove it" in caplog.text


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"")
    with pytest.raises(DataError, match="cannot read .*/b/a: Not a directory"):
        file_digests([file, tmp_path / "b" / "a"], tmp_path / "cache.db")
