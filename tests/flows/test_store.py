"""The embedding store: what is written is read, and damage of every kind is found and mended."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.embedding_manifest import EmbeddingManifest, EncoderIdentity
from flows.store import EmbeddingReader, EmbeddingStore, Namespace
from samif.errors import SamifError

SHAPE = (4, 6, 6)
ENCODER = EncoderIdentity(name="stand-in", digest="e" * 64)
PREPROCESSING = "p" * 64


def sha(index: int) -> str:
    return hashlib.sha256(str(index).encode()).hexdigest()


def embedding(picture: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(int(picture[:12], 16))
    return torch.randn(SHAPE, generator=generator).half().float()


def write(namespace: Namespace, pictures: list[str]) -> str:
    return namespace.write(pictures, torch.stack([embedding(picture) for picture in pictures]))


def manifest_of(pictures: list[str]) -> EmbeddingManifest:
    return EmbeddingManifest(
        encoder=ENCODER, preprocessing=PREPROCESSING, shape=SHAPE, pictures=tuple(sorted(set(pictures)))
    )


def expect(store: EmbeddingStore, pictures: list[str]) -> None:
    got = EmbeddingReader(store, manifest_of(pictures)).read(pictures)
    assert torch.equal(got, torch.stack([embedding(picture) for picture in pictures]))


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return EmbeddingStore(tmp_path / "store")


@pytest.fixture
def namespace(store: EmbeddingStore) -> Namespace:
    return store.namespace(ENCODER.digest, PREPROCESSING)


def files_of(namespace: Namespace, shard: str) -> tuple[Path, Path]:
    """Manifest and data file of a shard."""
    folder = namespace.folder / shard[:2]
    (data,) = folder.glob(f"{shard}.*.safetensors")
    return folder / f"{shard}.json", data


def test_what_is_written_is_read_in_any_order_and_type(store: EmbeddingStore, namespace: Namespace) -> None:
    pictures = [sha(index) for index in range(7)]
    assert namespace.missing(pictures) == pictures
    first, second = write(namespace, pictures[:4]), write(namespace, pictures[4:])
    assert namespace.missing([*pictures, sha(99), sha(99)]) == [sha(99)]
    assert namespace.locate([pictures[5], sha(99)]) == {pictures[5]: (second, 1)}
    expect(store, [pictures[5], pictures[0], pictures[5], pictures[3]])
    reader = EmbeddingReader(store, manifest_of(pictures))
    half = reader.read(pictures[:1], torch.float16)
    assert half.dtype == torch.float16
    assert torch.equal(half.float(), embedding(pictures[0])[None])
    assert reader.read([]).shape == (0, *SHAPE)
    assert first != second
    assert namespace.verify() == []


def test_reading_returns_copies(store: EmbeddingStore, namespace: Namespace) -> None:
    write(namespace, [sha(0)])
    reader = EmbeddingReader(store, manifest_of([sha(0)]))
    reader.read([sha(0)], torch.float16).zero_()
    assert torch.equal(reader.read([sha(0)])[0], embedding(sha(0)))


@settings(max_examples=20, deadline=None)
@given(groups=st.lists(st.lists(st.integers(0, 15), min_size=1, max_size=6, unique=True), min_size=1, max_size=5))
def test_any_grouping_into_shards_reads_the_same(
    groups: list[list[int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = EmbeddingStore(tmp_path_factory.mktemp("store"))
    namespace = store.namespace(ENCODER.digest, PREPROCESSING)
    for group in groups:
        write(namespace, [sha(index) for index in group])
    expect(store, [sha(index) for group in groups for index in group])
    assert namespace.verify() == []


def test_encoders_and_preprocessings_do_not_mix(store: EmbeddingStore, namespace: Namespace) -> None:
    write(namespace, [sha(0)])
    assert store.namespace("f" * 64, PREPROCESSING).missing([sha(0)]) == [sha(0)]
    assert store.namespace(ENCODER.digest, "q" * 64).missing([sha(0)]) == [sha(0)]
    assert store.namespace(ENCODER.digest, PREPROCESSING).missing([sha(0)]) == []


def test_writing_again_changes_nothing(namespace: Namespace) -> None:
    shard = write(namespace, [sha(0), sha(1)])
    before = [(path, path.stat().st_mtime_ns) for path in sorted(namespace.folder.rglob("*"))]
    assert write(namespace, [sha(0), sha(1)]) == shard
    assert [(path, path.stat().st_mtime_ns) for path in sorted(namespace.folder.rglob("*"))] == before


def test_equal_shards_are_equal_files(tmp_path: Path) -> None:
    trees = []
    for name in ("one", "two"):
        namespace = EmbeddingStore(tmp_path / name).namespace(ENCODER.digest, PREPROCESSING)
        write(namespace, [sha(0), sha(1)])
        trees.append({path.relative_to(tmp_path / name): path.read_bytes() for path in namespace.folder.rglob("*.*")})
    assert trees[0] == trees[1]
    assert len(trees[0]) == 2


@pytest.mark.parametrize("noise", [0.0, 0.01], ids=["equal", "differing in the last bits"])
def test_two_writers_at_once_are_harmless(store: EmbeddingStore, namespace: Namespace, noise: float) -> None:
    pictures = [sha(index) for index in range(8)]
    barrier = threading.Barrier(4)

    def work(writer: int) -> None:
        barrier.wait()
        for start in range(0, 8, 2):
            group = pictures[start : start + 2]
            values = torch.stack([embedding(picture) for picture in group])
            namespace.write(group, values + noise * writer)

    writers = [threading.Thread(target=work, args=(writer,)) for writer in range(4)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    orphans = [damage for damage in namespace.verify() if damage.reason != "its data has no manifest"]
    assert orphans == []
    assert namespace.missing(pictures) == []
    got = EmbeddingReader(store, manifest_of(pictures)).read(pictures)
    offset = got - torch.stack([embedding(picture) for picture in pictures])
    assert offset.abs().max() <= 3 * noise + 1e-2 * (noise > 0)


def _flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "torn": lambda manifest, data: os.truncate(data, data.stat().st_size - 1),
    "empty": lambda manifest, data: os.truncate(data, 0),
    "no data": lambda manifest, data: data.unlink(),
    "flipped bit": lambda manifest, data: _flip(data, -5),
    "flipped first row": lambda manifest, data: _flip(data, data.stat().st_size - 2 * 2 * 4 * 6 * 6),
    "no manifest": lambda manifest, data: manifest.unlink(),
    "torn manifest": lambda manifest, data: os.truncate(manifest, manifest.stat().st_size // 2),
    "flipped manifest": lambda manifest, data: manifest.write_text(
        manifest.read_text().replace('"shape": [\n  2', '"shape": [\n  3')
    ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_found_by_verify_and_mended(store: EmbeddingStore, namespace: Namespace, kind: str) -> None:
    pictures = [sha(0), sha(1)]
    shard, healthy = write(namespace, pictures), write(namespace, [sha(2)])
    DAMAGES[kind](*files_of(namespace, shard))
    damages = namespace.verify()
    assert damages
    assert {damage.shard for damage in damages} == {shard} != {healthy}
    for damage in damages:
        damage.discard()
    assert namespace.missing([*pictures, sha(2)]) == pictures
    for damage in namespace.verify():  # data whose damaged manifest went first
        damage.discard()
    assert namespace.verify() == []
    write(namespace, pictures)
    expect(store, [*pictures, sha(2)])


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("when", ["before", "after"])
def test_damage_is_found_by_read_and_mended(store: EmbeddingStore, namespace: Namespace, kind: str, when: str) -> None:
    """Before or after the reader looked up where embeddings lie."""
    pictures = [sha(0), sha(1)]
    shard = write(namespace, pictures)
    reader = EmbeddingReader(store, manifest_of(pictures))
    DAMAGES[kind](*files_of(namespace, shard))
    if when == "before":
        reader = EmbeddingReader(store, manifest_of(pictures))
    with pytest.raises(SamifError, match=rf"{shard}.*rerun 'samif run'"):
        reader.read(pictures)
    assert namespace.missing(pictures) == pictures
    write(namespace, pictures)
    expect(store, pictures)


def test_reading_what_was_never_embedded_is_refused(store: EmbeddingStore, namespace: Namespace) -> None:
    write(namespace, [sha(0)])
    with pytest.raises(SamifError, match="not in the embedding manifest"):
        EmbeddingReader(store, manifest_of([sha(0)])).read([sha(1)])
    with pytest.raises(SamifError, match=f"{sha(1)}.*damaged shards there: none"):
        EmbeddingReader(store, manifest_of([sha(0), sha(1)])).read([sha(1)])


def test_only_old_unfinished_files_are_damage(namespace: Namespace) -> None:
    shard = write(namespace, [sha(0)])
    unfinished = namespace.folder / shard[:2] / ".tmp-0"
    unfinished.write_bytes(b"half")
    assert namespace.verify() == []
    os.utime(unfinished, (0, time.time() - 3500))
    assert namespace.verify() == []
    os.utime(unfinished, (0, time.time() - 3700))
    (damage,) = namespace.verify()
    damage.discard()
    assert not unfinished.exists()
    assert namespace.missing([sha(0)]) == []


@pytest.mark.parametrize(("value", "accepted"), [(65504.0, True), (70000.0, False), (float("nan"), False)])
def test_embeddings_must_be_finite_as_float16(namespace: Namespace, value: float, accepted: bool) -> None:
    values = torch.zeros(2, *SHAPE)
    values[1, 0, 0, 0] = value
    if accepted:
        namespace.write([sha(0), sha(1)], values)
    else:
        with pytest.raises(SamifError, match=f"{sha(1)} is not finite"):
            namespace.write([sha(0), sha(1)], values)
        assert not namespace.folder.exists()


def test_writing_needs_one_embedding_for_each_picture(namespace: Namespace) -> None:
    with pytest.raises(ValueError, match="2 pictures"):
        namespace.write([sha(0), sha(1)], torch.zeros(3, *SHAPE))
    with pytest.raises(ValueError, match="2 pictures"):
        namespace.write([sha(0), sha(0)], torch.zeros(2, *SHAPE))


def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    namespace = EmbeddingStore(tmp_path / "file").namespace(ENCODER.digest, PREPROCESSING)
    with pytest.raises(SamifError, match="cannot be written"):
        write(namespace, [sha(0)])


def test_manifest_bytes_depend_on_content_alone(tmp_path: Path) -> None:
    manifest_of([sha(1), sha(0)]).save(tmp_path / "a" / "one.json")
    manifest_of([sha(0), sha(1), sha(0)]).save(tmp_path / "two.json")
    assert (tmp_path / "a" / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    loaded = EmbeddingManifest.load(tmp_path / "two.json")
    assert loaded == manifest_of([sha(0), sha(1)])
    assert loaded.digest != manifest_of([sha(0)]).digest
    content = json.loads((tmp_path / "two.json").read_text())
    assert content["schema"] == 1
    assert content["digest"] == loaded.digest
    assert content["shape"] == list(SHAPE)


@pytest.mark.parametrize("change", ["drop", "shape", "text", "list", "absent"])
def test_a_changed_manifest_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "embeddings.json"
    manifest_of([sha(0), sha(1)]).save(path)
    content = json.loads(path.read_text())
    if change == "drop":
        content["pictures"].pop()
    elif change == "shape":
        content["shape"] = [1, 2]
    path.write_text({"text": "{", "list": "[]"}.get(change, json.dumps(content)))
    if change == "absent":
        path.unlink()
    with pytest.raises(SamifError, match=r"embeddings\.json.*samif run"):
        EmbeddingManifest.load(path)
