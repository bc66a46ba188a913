"""The index of the embedding store: never different from the manifests, whatever happens to it or to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.store import EmbeddingStore, open_store
from flows.store.index import Index, unpack, words
from flows.store.shard import ShardManifest
from tests.support.store_kit import DAMAGES, expect, names_of, namespace_of, sha, write


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An index from two shards on."""
    monkeypatch.setattr("flows.store.catalogue._UNINDEXED", 2)
    monkeypatch.setenv("SAMIF_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> EmbeddingStore:
    if request.param == "folder":
        return open_store("store", tmp_path)
    return open_store(f"s3://{request.getfixturevalue('bucket')}/x", tmp_path)


def indexes(store: EmbeddingStore) -> list[str]:
    entries = store.storage.entries(namespace_of(store).folder)
    return [entry.name for entry in entries if "/index-" in entry.name]


def test_it_is_made_when_shards_are_many_and_grows_with_them(store: EmbeddingStore) -> None:
    namespace = namespace_of(store)
    images = [sha(index) for index in range(12)]
    write(store, images[:2])
    assert namespace.missing(images) == images[2:]
    assert indexes(store) == []
    write(store, images[2:4])
    assert namespace.missing(images) == images[4:]
    (first,) = indexes(store)
    write(store, images[4:5])
    assert namespace.missing(images) == images[5:]
    assert indexes(store) == [first]  # one more is not worth it
    write(store, images[5:8])
    assert namespace.missing(images) == images[8:]
    (second,) = indexes(store)
    assert second != first
    expect(store, images[:8])
    assert namespace.catalogue().count() == 8


@pytest.mark.parametrize("trouble", ["gone", "cut short", "changed", "empty"])
def test_without_a_good_index_all_is_as_right(store: EmbeddingStore, trouble: str) -> None:
    namespace = namespace_of(store)
    images = [sha(index) for index in range(6)]
    for image in images[:5]:
        write(store, [image])
    assert namespace.missing(images) == images[5:]
    (name,) = indexes(store)
    content = store.storage.read(name)
    assert content is not None
    store.storage.delete([name])
    changed = bytearray(content)
    changed[-40] ^= 1
    spoilt = {"cut short": content[:-8], "changed": bytes(changed), "empty": b""}
    if trouble in spoilt:
        store.storage.write(name, [spoilt[trouble]])
    assert namespace.missing(images) == images[5:]
    expect(store, images[:5])
    assert [store.storage.read(index) for index in indexes(store)] == [content]
    assert namespace.verify() == []


@pytest.mark.parametrize("kind", DAMAGES)
def test_it_knows_nothing_of_what_is_gone(tmp_path: Path, kind: str) -> None:
    """Damage to a shard that the index knows is found when it is seen by sizes, else when the shard is opened."""
    store = open_store("store", tmp_path)
    namespace = namespace_of(store)
    images = [sha(index) for index in range(8)]
    shards = [write(store, images[start : start + 2]) for start in range(0, 8, 2)]
    assert namespace.missing(images) == []
    DAMAGES[kind](store.storage, *names_of(store, shards[1]))
    if kind.startswith("flipped"):
        assert namespace.missing(images) == []
        assert {damage.shard for damage in namespace.verify()} == {shards[1]}
        for damage in namespace.verify():
            damage.discard()
    assert namespace.missing(images) == images[2:4]
    write(store, images[2:4])
    assert namespace.missing(images) == []
    expect(store, images)


def test_an_image_in_two_shards_outlives_one_of_them(store: EmbeddingStore) -> None:
    namespace = namespace_of(store)
    shards = [write(store, [sha(0), sha(index)]) for index in range(1, 5)]
    assert namespace.missing([sha(0)]) == []
    assert namespace.catalogue().count() == 5
    for shard in sorted(shards)[:-1]:
        (found,) = namespace.catalogue().find(namespace.key.words([sha(0)]))
        assert found == (shard, 0)
        DAMAGES["no data"](store.storage, *names_of(store, shard))
        expect(store, [sha(0)])
    DAMAGES["no data"](store.storage, *names_of(store, max(shards)))
    assert namespace.missing([sha(0)]) == [sha(0)]


def manifest(number: int, keys: list[str]) -> ShardManifest:
    return ShardManifest(
        shard=sha(number),
        keys=tuple(keys),
        shape=(len(keys), 1, 1, 4),
        file="",
        sha256=sha(-number),
        bytes=1,
        row_sums=(),
    )


@settings(max_examples=60, deadline=None)
@given(
    shards=st.lists(st.lists(st.integers(0, 9), max_size=5, unique=True), min_size=1, max_size=7),
    cut=st.integers(0, 7),
    dead=st.sets(st.integers(0, 6)),
    alike=st.integers(1, 3),
)
def test_it_finds_what_a_search_through_all_finds(
    shards: list[list[int]], cut: int, dead: set[int], alike: int
) -> None:
    """Also where an index is merged with more shards, shards die, and keys agree in their first eight bytes."""
    keys = [sha(number // alike)[:16] + sha(number)[16:] for number in range(11)]
    made = [(manifest(number, [keys[key] for key in some]), number) for number, some in enumerate(shards)]
    older, newer = made[:cut], made[cut:]
    index = Index.of(older)
    alive = np.array(
        [shard.tobytes().hex() not in {sha(number) for number in dead} for shard in index.shards], np.bool_
    )
    index = index.merged(alive, Index.of(newer))
    content = index.bytes()
    reread = Index.parse(memoryview(content), "")
    assert reread is not None
    left = [m for m, number in older if number not in dead] + [m for m, _ in newer]
    expected = {key: min(((m.shard, m.keys.index(key)) for m in left if key in m.keys), default=None) for key in keys}
    places = reread.find(words([bytes.fromhex(key) for key in keys]), np.ones(len(reread.shards), np.bool_))
    found = {}
    for key, place in zip(keys, places.tolist(), strict=True):
        shard, row = unpack(place)
        found[key] = (reread.shards[shard].tobytes().hex(), row) if place >= 0 else None
    assert found == expected
    assert [shard.tobytes().hex() for shard in reread.shards] == sorted(m.shard for m in left)
