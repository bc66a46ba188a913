"""`samif store stat, verify, gc`: what a store holds, whether it is intact, and what nobody needs any more."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from flows.cli.store import gc
from flows.store import EmbeddingStore, open_store
from flows.store.gc import garbage
from samif.errors import SamifError
from tests.support.console import refusal, samif
from tests.support.store_kit import (
    DAMAGES,
    ENCODER,
    PREPROCESSING,
    content_of,
    embeddings,
    expect,
    manifest_of,
    names_of,
    namespace_of,
    sha,
    write,
)
from tests.support.unprivileged import unprivileged_folder


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return open_store("store", tmp_path)


def age(store: EmbeddingStore, seconds: float, only: str = "") -> None:
    """Make everything (of a name) that old."""
    for path in Path(store.location).rglob("*"):
        if path.is_file() and only in path.name:
            os.utime(path, (0, time.time() - seconds))


def test_stat_counts_what_is_there(store: EmbeddingStore, tmp_path: Path) -> None:
    write(store, [sha(0), sha(1)])
    write(store, [sha(1), sha(2)])
    store.namespace("f" * 64, PREPROCESSING, "int8").write([sha(0)], embeddings([sha(0)]))
    (tmp_path / "store" / "notes").mkdir()
    told = samif(tmp_path, "store", "stat", "--store", "store", "--json").json
    assert told["store"] == str(tmp_path / "store")
    rows = {(r["encoder"][0], r["dtype"], r["shards"], r["images"], len(r["damages"])) for r in told["namespaces"]}
    assert rows == {("e", "float16", 2, 3, 0), ("f", "int8", 1, 1, 0)}
    assert sum(r["bytes"] for r in told["namespaces"]) == sum(map(len, content_of(store).values()))
    for_people = samif(tmp_path, "store", "stat", "--store", "store")
    assert for_people.code == 0
    assert "eeeeeeeeeeee" in for_people.out and "int8" in for_people.out


def test_stat_of_nothing(tmp_path: Path) -> None:
    assert samif(tmp_path, "store", "stat", "--store", "absent", "--json").json["namespaces"] == []
    refusal(samif(tmp_path, "store", "stat"), "no params.yaml", "--store")
    refusal(samif(tmp_path, "store", "stat", "--store", "https://host/x"), "s3://bucket/prefix")


def test_verify_finds_damage_and_mends_it(store: EmbeddingStore, tmp_path: Path) -> None:
    command = ("store", "verify", "--store", "store")
    shards = {kind: write(store, [sha(2 * i), sha(2 * i + 1)]) for i, kind in enumerate(DAMAGES)}
    intact = write(store, [sha(100)])
    done = samif(tmp_path, *command)
    assert done.code == 0, done.err
    assert f"{len(shards) + 1} shards, all intact" in done.out
    for kind, shard in shards.items():
        DAMAGES[kind](store.storage, *names_of(store, shard))
    done = samif(tmp_path, *command, "--json")
    refusal(done, "is damaged in 7 places", "samif store verify --repair")
    for kind, shard in shards.items():
        assert (shard in done.out) == (kind != "no manifest")  # whose writer may be about to write it
    assert intact not in done.out
    repaired = samif(tmp_path, *command, "--repair")
    assert repaired.code == 0, repaired.err
    assert "all intact" in samif(tmp_path, *command).out
    assert namespace_of(store).missing([sha(i) for i in range(101)]) == [sha(i) for i in range(100)]
    expect(store, [sha(100)])


def test_gc_keeps_what_a_manifest_names_and_what_is_young(store: EmbeddingStore, tmp_path: Path) -> None:
    used, unused, young = write(store, [sha(0), sha(1)]), write(store, [sha(2), sha(3)]), write(store, [sha(4)])
    store.namespace("f" * 64, PREPROCESSING).write([sha(0)], embeddings([sha(0)]))
    workspace = tmp_path / "line"
    manifest_of([sha(0)]).save(workspace / "artifacts" / "embeddings.parquet")
    manifest_of([sha(1)]).save(tmp_path / "branch.json")
    age(store, 3700)
    age(store, 3500, young)
    before = content_of(store)
    command = ("store", "gc", "line", "branch.json", "--store", "store")
    dry = samif(tmp_path, *command)
    assert dry.code == 0, dry.err
    assert "nothing was removed" in dry.out and "2 files are younger" in dry.out
    assert content_of(store) == before
    told = samif(tmp_path, *command, "--delete", "--json").json
    assert told["deleted"]
    assert sum(part["shards"] for part in told["garbage"]) == 2
    left = content_of(store)
    assert {shard for shard in (used, unused, young) if any(shard in name for name in left)} == {used, young}
    assert all(name.startswith(namespace_of(store).folder) for name in left)
    assert sum(part["bytes"] for part in told["garbage"]) == sum(len(before[name]) for name in before.keys() - left)
    expect(store, [sha(0), sha(1)])


def test_gc_removes_what_writers_left_behind(store: EmbeddingStore, tmp_path: Path) -> None:
    write(store, [sha(0)])
    manifest_of([sha(0)]).save(tmp_path / "kept.json")
    folder = tmp_path / "store" / namespace_of(store).folder / "ab"
    folder.mkdir(exist_ok=True)
    for name in (".tmp-1", f"{'ab' * 32}.{'0' * 16}.safetensors"):
        (folder / name).write_bytes(b"half")
    age(store, 3700)
    (folder / ".tmp-2").write_bytes(b"half")
    (tmp_path / "store" / "notes").mkdir()
    (tmp_path / "store" / "notes" / "old.txt").write_text("not the store's")
    age(store, 3700, "old.txt")
    (part,) = garbage(store.storage, [manifest_of([sha(0)])])
    assert len(part.names) == 2
    assert part.too_young == 1
    assert samif(tmp_path, "store", "gc", "kept.json", "--store", "store", "--delete").code == 0
    assert [path.name for path in folder.iterdir()] == [".tmp-2"]
    assert (tmp_path / "store" / "notes" / "old.txt").exists()
    expect(store, [sha(0)])


def test_gc_does_not_claim_to_have_removed_what_it_may_not() -> None:
    with unprivileged_folder() as root:
        store = open_store("store", root)
        shard = write(store, [sha(0)])
        manifest_of([sha(1)]).save(root / "kept.json")
        folder = root / "store" / namespace_of(store).folder / shard[:2]
        for path in folder.iterdir():
            os.utime(path, (0, 0))
        folder.chmod(0o500)
        with pytest.raises(SamifError, match="2 of [23] files in .* cannot be removed, such as .*; correct the permi"):
            gc([root / "kept.json"], delete=True, store=str(root / "store"))
        expect(store, [sha(0)])
        manifest, _ = names_of(store, shard)
        folder.chmod(0)
        with pytest.raises(SamifError, match=r"cannot be read \(Permission denied\); check its permissions"):
            store.storage.size(manifest)
        folder.chmod(0o700)


def test_gc_refuses_to_guess_what_is_kept(store: EmbeddingStore, tmp_path: Path) -> None:
    write(store, [sha(0)])
    (tmp_path / "empty").mkdir()
    assert samif(tmp_path, "store", "gc", "--store", "store").code == 2
    refusal(
        samif(tmp_path, "store", "gc", "empty", "--store", "store", "--delete"), "embeddings.parquet does not exist"
    )


def test_only_old_unfinished_files_are_damage(store: EmbeddingStore, tmp_path: Path) -> None:
    shard = write(store, [sha(0)])
    unfinished = tmp_path / "store" / namespace_of(store).folder / shard[:2] / ".tmp-0"
    unfinished.write_bytes(b"half")
    assert namespace_of(store).verify() == []
    age(store, 3500, ".tmp-0")
    assert namespace_of(store).verify() == []
    age(store, 3700, ".tmp-0")
    (damage,) = namespace_of(store).verify()
    damage.discard()
    assert not unfinished.exists()
    assert namespace_of(store).missing([sha(0)]) == []


def test_the_same_in_a_bucket(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMIF_CACHE", str(tmp_path / "cache"))
    location = f"s3://{bucket}/shared/store"
    store = open_store(location, tmp_path)
    used, unused = write(store, [sha(0), sha(1)]), write(store, [sha(2), sha(3)])
    manifest_of([sha(0)]).save(tmp_path / "kept.json")
    told = samif(tmp_path, "store", "stat", "--store", location, "--json").json
    assert [(r["encoder"], r["shards"], r["images"]) for r in told["namespaces"]] == [(ENCODER.digest, 2, 4)]
    told = samif(tmp_path, "store", "gc", "kept.json", "--store", location, "--delete", "--json").json
    assert [(part["shards"], part["too_young"]) for part in told["garbage"]] == [(0, 2)]
    monkeypatch.setattr("flows.store.gc.SETTLED_SECONDS", -60.0)
    (part,) = garbage(store.storage, [manifest_of([sha(0)])])
    assert part.names == tuple(names_of(store, unused))
    store.storage.delete(part.names)
    assert namespace_of(store).missing([sha(i) for i in range(4)]) == [sha(2), sha(3)]
    DAMAGES["flipped bit"](store.storage, *names_of(store, used))
    refusal(samif(tmp_path, "store", "verify", "--store", location), "is damaged in 1 place;", "--repair")
    assert samif(tmp_path, "store", "verify", "--store", location, "--repair").code == 0
    assert namespace_of(store).missing([sha(0)]) == [sha(0)]
