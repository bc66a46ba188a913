"""The embedding store in a folder: a full disk, permissions, and processes that write, die or truncate."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from flows.store import EmbeddingStore, open_store
from samif.errors import SamifError
from tests.support.store_kit import SHAPE, embeddings, expect, names_of, namespace_of, reader_of, sha, write


def write_all(folder: Path, noise: float) -> list[str]:
    """Eight shards, as one of several processes."""
    store = EmbeddingStore(folder)
    groups = [[sha(index), sha(index + 1)] for index in range(0, 16, 2)]
    return [namespace_of(store).write(group, embeddings(group) + noise) for group in groups]


def test_processes_that_write_the_same_at_once(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        shards = [pool.submit(write_all, tmp_path / "store", 0.01 * number) for number in range(2)]
        assert len({tuple(names.result()) for names in shards}) == 1
    store = EmbeddingStore(tmp_path / "store")
    assert namespace_of(store).verify() == []
    images = [sha(index) for index in range(16)]
    noise = reader_of(store, images).read(images) - embeddings(images)
    for shard in noise.view(8, -1):  # whole shards of one process each
        assert (shard - 0.01 * (shard.mean() / 0.01).round()).abs().max() <= 2e-3


def test_a_writer_that_is_killed_leaves_nothing_half(tmp_path: Path) -> None:
    """Killed where the data is there and its manifest is not, and with the temporary file half written."""
    code = (
        "import os, sys; from pathlib import Path; from samif.io import files; from flows.store import EmbeddingStore\n"
        "from tests.support.store_kit import sha, write\n"
        "def die(*_): os.kill(os.getpid(), 9)\n"
        "setattr(files, sys.argv[2], die)\n"
        "write(EmbeddingStore(Path(sys.argv[1])), [sha(0), sha(1)])\n"
    )
    store = EmbeddingStore(tmp_path / "store")
    for deadly in ("publish", "publish_new"):
        done = subprocess.run([sys.executable, "-c", code, store.location, deadly], cwd=Path(__file__).parents[3])
        assert done.returncode == -9
        assert namespace_of(store).missing([sha(0), sha(1)]) == [sha(0), sha(1)]
    write(store, [sha(0), sha(1)])
    expect(store, [sha(0), sha(1)])
    assert namespace_of(store).verify() == []  # what was left is young: its writer might be at work


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "samif-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small file system to fill")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_told_and_resumed(small_disk: Path) -> None:
    store = EmbeddingStore(small_disk / "store")
    (small_disk / "other").write_bytes(bytes(220_000))
    images = [sha(index) for index in range(40)]
    groups = [images[start : start + 8] for start in range(0, 40, 8)]
    with pytest.raises(
        SamifError, match=r"cannot be written \(No space left on device\); free space.*run 'samif run' again"
    ) as caught:
        list(map(partial(write, store), groups))
    assert "\n" not in str(caught.value)
    left = namespace_of(store).missing(images)
    assert left == images[40 - len(left) :]
    assert 0 < len(left) < 40
    assert namespace_of(store).verify() == []
    expect(store, [image for image in images if image not in left])
    (small_disk / "other").unlink()
    list(map(partial(write, store), groups))
    expect(store, images)
    assert namespace_of(store).verify() == []


def test_a_file_size_limit_is_told(tmp_path: Path) -> None:
    """As a quota would be; for people who cannot mount."""
    code = (
        "import resource, sys; from pathlib import Path; from flows.store import EmbeddingStore\n"
        "from samif.errors import SamifError; from tests.support.store_kit import sha, write\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))\n"
        "try: write(EmbeddingStore(Path(sys.argv[1])), [sha(i) for i in range(16)])\n"
        "except SamifError as error: sys.exit(f'refused: {error}')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "store")]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert "refused: the embedding store" in done.stderr and "(File too large); free space" in done.stderr
    assert [
        path for path in (tmp_path / "store").rglob("*") if path.suffix == ".safetensors" or ".tmp" in path.name
    ] == []
    write(EmbeddingStore(tmp_path / "store"), [sha(i) for i in range(16)])


def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(SamifError, match="cannot be written"):
        write(EmbeddingStore(tmp_path / "file"), [sha(0)])


def test_a_file_cut_short_under_a_reader_is_damage(tmp_path: Path) -> None:
    """Touching memory behind the end of a mapped file would end the process without a word."""
    store = EmbeddingStore(tmp_path / "store")
    images = [sha(index) for index in range(64)]
    shard = write(store, images)
    reader = reader_of(store, images)
    reader.read(images[:1])
    os.truncate(Path(store.location) / names_of(store, shard)[1], 10)
    with pytest.raises(SamifError, match=rf"{shard}.*10 bytes instead of.*run 'samif run'"):
        reader.read(images)
    assert namespace_of(store).missing(images) == images


def test_a_store_without_hard_links_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    store = open_store("file://" + str(tmp_path / "store"), Path("/nowhere"))
    shard = write(store, [sha(0)])
    assert write(store, [sha(0)]) == shard
    expect(store, [sha(0)])
    assert store.storage.create("x/y", b"1") and not store.storage.create("x/y", b"2")
    assert store.storage.read("x/y") == b"1"


def test_manifests_from_before_there_were_dtypes_are_read(tmp_path: Path) -> None:
    """What a float16 shard is called and what its manifest says must never change: stores live for years."""
    store = EmbeddingStore(tmp_path / "store")
    values = torch.arange(2 * SHAPE[0] * SHAPE[1] * SHAPE[2], dtype=torch.float32).view(2, *SHAPE) / 64
    shard = namespace_of(store).write([sha(0), sha(1)], values)
    manifest, data = names_of(store, shard)
    assert namespace_of(store).folder == "4c8a1200b4189de5"
    assert shard == "8db659c4e368f2676b0f8ee48170a5a7b5440d37df2f115f34dbeda8d46bb76e"
    assert data.endswith(f"{shard}.62ff98acdf77ab60.safetensors")
    checksum = "be77cd212e64149dc6e5083bd2bde7648ad2d6476c58e2e06e293d7a3c75582a"
    assert f'"checksum": "{checksum}"' in (tmp_path / "store" / manifest).read_text()
