"""The embedding store on a folder and on a real bucket: what is written is read, and damage of every kind is found
and mended."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from flows.store import EmbeddingReader, EmbeddingStore, open_store
from flows.store.shard import manifest_name
from flows.store.verify import repair
from samif.config import StoredAs
from samif.errors import SamifError
from tests.support.store_kit import (
    DAMAGES,
    ENCODER,
    PREPROCESSING,
    SHAPE,
    content_of,
    embedding,
    embeddings,
    expect,
    manifest_of,
    names_of,
    namespace_of,
    reader_of,
    sha,
    write,
)


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddingStore:
    monkeypatch.setenv("SAMIF_CACHE", str(tmp_path / "cache"))
    if request.param == "folder":
        return open_store("store", tmp_path)
    return open_store(f"s3://{request.getfixturevalue('bucket')}/lines/one", tmp_path)


def test_what_is_written_is_read_in_any_order_and_type(store: EmbeddingStore) -> None:
    images = [sha(index) for index in range(7)]
    namespace = namespace_of(store)
    assert namespace.missing(images) == images
    first, second = write(store, images[:4]), write(store, images[4:])
    assert namespace.holds(first) and namespace.holds(second) and first != second
    assert namespace.missing([*images, sha(99), sha(99)]) == [sha(99)]
    assert namespace.catalogue().find(namespace.key.words([images[5], sha(99)])) == [(second, 1), None]
    expect(store, [images[5], images[0], images[5], images[3]])
    reader = reader_of(store, images)
    half = reader.read(images[:1], torch.float16)
    assert half.dtype == torch.float16
    assert torch.equal(half.float(), embedding(images[0])[None])
    assert reader.read([]).shape == (0, *SHAPE)
    assert namespace.verify() == []


def test_reading_returns_copies(store: EmbeddingStore) -> None:
    write(store, [sha(0)])
    reader = reader_of(store, [sha(0)])
    reader.read([sha(0)], torch.float16).zero_()
    assert torch.equal(reader.read([sha(0)])[0], embedding(sha(0)))


def test_another_process_opens_the_same_store(store: EmbeddingStore) -> None:
    write(store, [sha(0)])
    other: EmbeddingStore = pickle.loads(pickle.dumps(store))  # noqa: S301  (our own bytes)
    assert other.location == store.location
    expect(other, [sha(0)])
    write(other, [sha(1)])
    expect(store, [sha(0), sha(1)])


@settings(max_examples=20, deadline=None)
@given(groups=st.lists(st.lists(st.integers(0, 15), min_size=1, max_size=6, unique=True), min_size=1, max_size=5))
def test_any_grouping_into_shards_reads_the_same(
    groups: list[list[int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = EmbeddingStore(tmp_path_factory.mktemp("store"))
    for group in groups:
        write(store, [sha(index) for index in group])
    expect(store, [sha(index) for group in groups for index in group])
    assert namespace_of(store).verify() == []


def test_encoders_preprocessings_and_dtypes_do_not_mix(store: EmbeddingStore) -> None:
    write(store, [sha(0)])
    assert store.namespace("f" * 64, PREPROCESSING).missing([sha(0)]) == [sha(0)]
    assert store.namespace(ENCODER.digest, "q" * 64).missing([sha(0)]) == [sha(0)]
    assert store.namespace(ENCODER.digest, PREPROCESSING, "int8").missing([sha(0)]) == [sha(0)]
    assert store.namespace(ENCODER.digest, PREPROCESSING, "float16").missing([sha(0)]) == []


def test_writing_again_changes_nothing(store: EmbeddingStore) -> None:
    shard = write(store, [sha(0), sha(1)])
    before = content_of(store)
    assert write(store, [sha(0), sha(1)]) == shard
    assert content_of(store) == before


def test_equal_shards_are_equal_wherever_they_lie(store: EmbeddingStore, tmp_path: Path) -> None:
    other = EmbeddingStore(tmp_path / "other")
    write(store, [sha(0), sha(1)])
    write(other, [sha(0), sha(1)])
    assert content_of(store) == content_of(other)
    assert len(content_of(store)) == 3  # data, manifest, and what the namespace is


def test_a_shard_is_a_safetensors_file_like_any(store: EmbeddingStore) -> None:
    content = store.storage.read(names_of(store, write(store, [sha(0), sha(1)]))[1])
    assert content is not None
    tensors = load(content)
    assert torch.equal(tensors["embeddings"].float(), embeddings([sha(0), sha(1)]))
    keys = namespace_of(store).key.keys([sha(0), sha(1)])
    assert save(tensors, metadata={"keys": json.dumps(keys)}) == content


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_data_whose_writer_died_before_its_manifest_is_committed(store: EmbeddingStore, dtype: StoredAs) -> None:
    namespace = store.namespace(ENCODER.digest, PREPROCESSING, dtype)
    images = [sha(0), sha(1), sha(2)]
    manifest = manifest_name(namespace.folder, namespace.write(images, embeddings(images)))
    before = store.storage.read(manifest)
    store.storage.delete([manifest])
    assert namespace.missing(images) == images
    assert namespace.recover(SHAPE) == 1
    assert store.storage.read(manifest) == before
    assert namespace.missing(images) == [] == namespace.verify()
    assert namespace.recover(SHAPE) == 0


@pytest.mark.parametrize(
    "harm", [lambda data: data[:-8], lambda data: data[:200], lambda data: data[:-1] + b"\x55", lambda data: b""]
)
def test_data_without_manifest_that_is_not_what_it_says_goes(
    store: EmbeddingStore, harm: Callable[[bytes], bytes]
) -> None:
    manifest, data = names_of(store, write(store, [sha(0), sha(1)]))
    content = store.storage.read(data)
    assert content is not None
    store.storage.delete([manifest])
    store.storage.write(data, [harm(content)])
    assert namespace_of(store).recover(SHAPE) == 0
    assert namespace_of(store).verify() == []
    assert namespace_of(store).missing([sha(0), sha(1)]) == [sha(0), sha(1)]


def test_the_data_of_a_writer_who_came_second_and_died_goes(store: EmbeddingStore) -> None:
    manifest, _ = names_of(store, write(store, [sha(0), sha(1)]))
    first = store.storage.read(manifest)
    store.storage.delete([manifest])
    namespace_of(store).write([sha(0), sha(1)], embeddings([sha(0), sha(1)]) + 1)
    assert len(namespace_of(store).catalogue().orphans) == 1
    assert namespace_of(store).recover(SHAPE) == 0
    assert namespace_of(store).catalogue().orphans == [] == namespace_of(store).verify()
    assert store.storage.read(manifest) != first


@pytest.mark.parametrize("noise", [0.0, 0.01], ids=["equal", "differing in the last bits"])
def test_eight_writers_of_the_same_shards_at_once(store: EmbeddingStore, noise: float) -> None:
    images = [sha(index) for index in range(8)]
    barrier = threading.Barrier(8)
    failures: list[BaseException] = []

    def work(writer: int) -> None:
        barrier.wait()
        try:
            for start in range(0, 8, 4):
                group = images[start : start + 4]
                namespace_of(store).write(group, embeddings(group) + noise * writer)
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=work, args=(writer,)) for writer in range(8)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    assert failures == []
    assert namespace_of(store).verify() == []  # who came too late took his data away again
    assert namespace_of(store).missing(images) == []
    got = reader_of(store, images).read(images) - embeddings(images)
    for shard in (got[:4], got[4:]):  # each of one writer, whole
        writer = shard.mean() / noise if noise else torch.zeros(())
        assert (shard - noise * writer.round()).abs().max() <= 2e-3


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_found_by_verify_and_mended(store: EmbeddingStore, kind: str) -> None:
    images = [sha(0), sha(1)]
    namespace = namespace_of(store)
    shard, healthy = write(store, images), write(store, [sha(2)])
    DAMAGES[kind](store.storage, *names_of(store, shard))
    damages = namespace.verify()
    expected = set() if kind == "no manifest" else {shard}  # its writer may be about to write it
    assert {damage.shard for damage in damages} == expected != {healthy}
    assert all(repair(store.storage, namespace.folder, damage) for damage in damages)
    assert namespace.missing([*images, sha(2)]) == images
    assert namespace.verify() == []
    write(store, images)
    expect(store, [*images, sha(2)])


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("when", ["before", "after"])
def test_damage_is_found_by_read_and_mended(store: EmbeddingStore, kind: str, when: str) -> None:
    """Before or after the reader looked up where embeddings lie."""
    images = [sha(0), sha(1)]
    shard = write(store, images)
    reader = reader_of(store, images)
    DAMAGES[kind](store.storage, *names_of(store, shard))
    if when == "before":
        reader = reader_of(store, images)
    with pytest.raises(SamifError, match=rf"{shard}.*run 'samif run'"):
        reader.read(images)
    assert namespace_of(store).missing(images) == images
    write(store, images)
    expect(store, images)


@pytest.mark.parametrize("kind", DAMAGES)
def test_writing_over_damage_mends_it(store: EmbeddingStore, kind: str) -> None:
    """A rerun that finds an image missing writes its shard although the name is taken. What only hashing finds stays
    until `verify` or a reader has found it."""
    images = [sha(0), sha(1)]
    DAMAGES[kind](store.storage, *names_of(store, write(store, images)))
    write(store, images)
    if kind.startswith("flipped") and kind != "flipped manifest":
        assert [damage.reason for damage in namespace_of(store).verify()] == ["its bytes do not match their SHA-256"]
    else:
        expect(store, images)
        assert namespace_of(store).verify() == []


def test_reading_what_was_never_embedded_is_refused(store: EmbeddingStore) -> None:
    write(store, [sha(0)])
    with pytest.raises(SamifError, match="not in the embedding manifest"):
        reader_of(store, [sha(0)]).read([sha(1)])
    with pytest.raises(SamifError, match=f"{sha(1)}.*damaged shards there: none"):
        reader_of(store, [sha(0), sha(1)]).read([sha(1)])


@pytest.mark.parametrize(
    ("stored", "value", "accepted"),
    [
        ("float16", 65504.0, True),
        ("float16", 70000.0, False),
        ("float16", float("nan"), False),
        ("int8", 70000.0, True),
        ("int8", float("nan"), False),
        ("int8", float("-inf"), False),
    ],
)
def test_embeddings_must_be_finite_in_their_dtype(
    tmp_path: Path, stored: StoredAs, value: float, accepted: bool
) -> None:
    store = open_store("store", tmp_path, stored)
    values = torch.zeros(2, *SHAPE)
    values[1, 0, 0, 0] = value
    if accepted:
        namespace_of(store).write([sha(0), sha(1)], values)
    else:
        with pytest.raises(SamifError, match=f"{sha(1)} is not finite"):
            namespace_of(store).write([sha(0), sha(1)], values)
        assert not (tmp_path / "store").exists()


def test_writing_needs_one_embedding_for_each_image(store: EmbeddingStore) -> None:
    with pytest.raises(ValueError, match="2 images"):
        namespace_of(store).write([sha(0), sha(1)], torch.zeros(3, *SHAPE))
    with pytest.raises(ValueError, match="2 images"):
        namespace_of(store).write([sha(0), sha(0)], torch.zeros(2, *SHAPE))
    with pytest.raises(ValueError, match="64-bit words"):
        namespace_of(store).write([sha(0)], torch.zeros(1, 1, 1, 3))


# dtypes


@pytest.mark.parametrize(("stored", "error", "numbers"), [("float16", 5e-4, 2), ("int8", 4e-3, 1 + 4 / 48)])
def test_a_dtype_costs_accuracy_and_saves_room(
    store: EmbeddingStore, stored: StoredAs, error: float, numbers: float
) -> None:
    """Errors as part of the largest number of a channel; bytes per number."""
    images = [sha(index) for index in range(5)]
    namespace = store.namespace(ENCODER.digest, PREPROCESSING, stored)
    values = embeddings(images)
    values[2, 1] = 0.0  # a channel of nothing
    values[3, 2] *= 100.0  # one that would spoil its neighbours if they shared a scale
    shard = namespace.write(images, values)
    reader = EmbeddingReader(store, manifest_of(images, stored))
    for dtype, rounding in ((torch.float32, 0.0), (torch.float16, 5e-4)):
        got = reader.read(images[::-1], dtype).float().flip(0)
        assert (
            (got - values).abs() / values.abs().amax((2, 3), keepdim=True).clamp_min(1e-9)
        ).max() <= error + rounding
        assert bool((got[2, 1] == 0).all())
    assert namespace.verify() == []
    (data,) = (entry for entry in store.storage.entries(namespace.folder) if entry.name.endswith(".safetensors"))
    content = store.storage.read(data.name)
    assert content is not None
    assert shard in data.name
    assert data.bytes - 8 - int.from_bytes(content[:8], "little") == pytest.approx(numbers * values.numel())


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("part", ["scales", "embeddings"])
def test_a_changed_scale_is_found_like_any_damage(store: EmbeddingStore, part: str, row: int) -> None:
    images = [sha(0), sha(1)]
    namespace = store.namespace(ENCODER.digest, PREPROCESSING, "int8")
    shard = namespace.write(images, embeddings(images))
    (data,) = [e.name for e in store.storage.entries(namespace.folder) if e.name.endswith(".safetensors")]
    content = bytearray(store.storage.read(data) or b"")
    scales, integers = SHAPE[0] * 4, SHAPE[0] * SHAPE[1] * SHAPE[2]
    content[(row - 2) * (scales + integers) + (scales if part == "embeddings" else 0)] ^= 1
    store.storage.write(data, [bytes(content)])
    with pytest.raises(SamifError, match=rf"{shard}.*row {row} do not match"):
        EmbeddingReader(store, manifest_of(images, "int8")).read(images)
    assert namespace.missing(images) == images
