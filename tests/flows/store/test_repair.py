"""`samif store verify --repair` while others write to the store: it loses nothing and reports no fault that is none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.store import EmbeddingStore, open_store
from flows.store.folder import Folder
from flows.store.storage import Entry
from flows.store.verify import check, repair
from tests.support.console import samif
from tests.support.store_kit import DAMAGES, expect, names_of, namespace_of, sha, write

WRITER = """
import sys
from pathlib import Path
from flows.store import open_store
from tests.support.store_kit import embeddings, namespace_of, sha
store = open_store(sys.argv[1], Path.cwd())
for shard in range(int(sys.argv[2])):
    images = [sha(2 * shard), sha(2 * shard + 1)]
    namespace_of(store).write(images, embeddings(images))
"""


class Watched(Folder):
    """A folder in which something happens after a call."""

    after: dict[str, Callable[[], object]]

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.after = {}

    def delete(self, names: object) -> None:
        super().delete(names)  # type: ignore[arg-type]
        self.after.pop("delete", lambda: None)()

    def entries(self, folder: str) -> list[Entry]:
        found = super().entries(folder)
        self.after.pop("entries", lambda: None)()
        return found


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return EmbeddingStore(Watched(tmp_path / "store"))


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_beside_a_writer(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Another process writes shard after shard while this one verifies and repairs all the time."""
    location = str(tmp_path / "store")
    if where == "bucket":
        location = f"s3://{request.getfixturevalue('bucket')}/store"
    count = 100 if where == "folder" else 12
    root = Path(__file__).parents[3]
    writer = subprocess.Popen([sys.executable, "-c", WRITER, location, str(count)], cwd=root)
    store = open_store(location, tmp_path)
    rounds, seen = 0, set()
    try:
        while writer.poll() is None:
            namespace = namespace_of(store)
            catalogue = namespace.catalogue()
            found = namespace.verify()
            assert found == []
            for damage in catalogue.damages:  # what the listing alone takes for damage
                assert repair(store.storage, namespace.folder, damage)
            rounds += 1
            seen.add(len(catalogue.shards()))
    finally:
        writer.wait()
    assert writer.returncode == 0
    assert rounds > 2 and len(seen) > 2  # it verified while shards were being written
    images = [sha(index) for index in range(2 * count)]
    assert namespace_of(store).missing(images) == [] == namespace_of(store).verify()
    expect(store, images)


def test_a_shard_that_is_written_during_the_listing_is_no_damage(store: EmbeddingStore, tmp_path: Path) -> None:
    """The listing has the manifest and lacks the data, as where both were written between two pages of it."""
    images = [sha(0), sha(1)]
    _manifest, data = names_of(store, write(store, images))
    content = store.storage.read(data)
    assert content is not None
    store.storage.delete([data])
    store.storage.after["entries"] = lambda: store.storage.write(data, [content])  # type: ignore[attr-defined]
    assert namespace_of(store).verify() == []
    expect(store, images)


@pytest.mark.parametrize("kind", ["torn", "empty", "no data", "flipped bit", "flipped first row"])
@pytest.mark.parametrize("when", ["before", "after the manifest went"])
def test_a_shard_that_is_replaced_during_repair_is_kept(store: EmbeddingStore, kind: str, when: str) -> None:
    """A writer puts the right data under its name: before repair looks at it, and after repair removed the manifest.
    It finds the manifest there, so it does not write that again."""
    images = [sha(0), sha(1)]
    namespace = namespace_of(store)
    shard = write(store, images)
    manifest, data = names_of(store, shard)
    content = store.storage.read(data)
    assert content is not None
    DAMAGES[kind](store.storage, manifest, data)
    (damage,) = namespace.verify()
    if when == "before":
        store.storage.write(data, [content])
    else:
        store.storage.after["delete"] = lambda: store.storage.write(data, [content])  # type: ignore[attr-defined]
    assert repair(store.storage, namespace.folder, damage)
    assert check(store.storage, namespace.folder, shard) is None
    assert namespace.missing(images) == []
    expect(store, images)


@pytest.mark.parametrize("kind", ["torn manifest", "flipped manifest"])
def test_a_manifest_that_is_replaced_before_repair_is_kept(store: EmbeddingStore, kind: str) -> None:
    images = [sha(0), sha(1)]
    namespace = namespace_of(store)
    DAMAGES[kind](store.storage, *names_of(store, write(store, images)))
    (damage,) = namespace.verify()
    write(store, images)
    assert repair(store.storage, namespace.folder, damage)
    expect(store, images)


def test_data_without_a_manifest_survives_repair(store: EmbeddingStore, tmp_path: Path) -> None:
    """Its writer is about to write the manifest: were the data gone, the shard would be damaged from the start."""
    images = [sha(0), sha(1)]
    manifest, _ = names_of(store, write(store, images))
    content = store.storage.read(manifest)
    assert content is not None
    store.storage.delete([manifest])
    done = samif(tmp_path, "store", "verify", "--store", "store", "--repair")
    assert done.code == 0, done.err
    assert store.storage.create(manifest, content)
    expect(store, images)
