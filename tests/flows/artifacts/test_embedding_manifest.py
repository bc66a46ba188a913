"""The embedding manifest: what goes in comes out, equal ones are equal bytes, and damage is one sentence."""

from __future__ import annotations

import hashlib
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flows.artifacts.embedding_manifest import EmbeddingManifest, EncoderIdentity
from flows.artifacts.image_keys import ImageKeys
from flows.loaders.image_paths import ImagePaths
from samif.dataset.model import Dataset, ImageRecord
from samif.errors import IntegrityError, ObjectMissing
from tests.support.console import refusal, samif
from tests.support.store_kit import ENCODER, PREPROCESSING, SHAPE, manifest_of, sha


def large(count: int) -> EmbeddingManifest:
    raw = np.random.default_rng(0).integers(0, 256, (count, 32), np.uint8)
    keys = ImageKeys(raw)
    keys = ImageKeys(raw[keys.once()])
    return EmbeddingManifest(encoder=ENCODER, preprocessing=PREPROCESSING, shape=SHAPE, images=keys)


@pytest.mark.parametrize("count", [0, 1, 65_536, 70_000])
def test_what_is_saved_is_read(tmp_path: Path, count: int) -> None:
    manifest = large(count)
    manifest.save(tmp_path / "new" / "embeddings.parquet")
    again = EmbeddingManifest.load(tmp_path / "new" / "embeddings.parquet")
    assert again == manifest and len(again.images) == count and again.digest == manifest.digest
    again.save(tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "new" / "embeddings.parquet").read_bytes()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["embeddings.parquet"]


def test_every_field_and_image_changes_the_digest(tmp_path: Path) -> None:
    base = manifest_of([sha(0), sha(1)])
    others = [
        base.model_copy(update={"encoder": EncoderIdentity(name="other", digest="e" * 64)}),
        base.model_copy(update={"encoder": EncoderIdentity(name="stand-in", digest="d" * 64)}),
        base.model_copy(update={"preprocessing": "q" * 64}),
        base.model_copy(update={"shape": (4, 8, 6)}),
        base.model_copy(update={"dtype": "int8"}),
        manifest_of([sha(0)]),
        manifest_of([sha(0), sha(2)]),
    ]
    assert len({manifest.digest for manifest in [base, *others]}) == 8
    for manifest in others:
        manifest.save(tmp_path / "m.parquet")
        assert EmbeddingManifest.load(tmp_path / "m.parquet") == manifest != base


def test_reading_takes_the_memory_of_the_digests_alone(tmp_path: Path) -> None:
    manifest = large(100_000)
    manifest.save(tmp_path / "m.parquet")
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        again = EmbeddingManifest.load(tmp_path / "m.parquet")
        peak = tracemalloc.get_traced_memory()[1]
        every = sum(len(image) for image in again.images)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert every == 6_400_000
    assert peak < 32 * 100_000 + 1e6 and most < 32 * 100_000 + 9e6, (peak, most)  # as strings: 11 MB and a list
    assert pa.total_allocated_bytes() - before < 1e6


def test_damage_is_one_sentence_wherever_it_is(tmp_path: Path) -> None:
    """Every third byte of a small file changed, and cuts there: refused, or the file says the same."""
    path = tmp_path / "m.parquet"
    manifest = manifest_of([sha(index) for index in range(3)])
    manifest.save(path)
    content = path.read_bytes()
    refused: list[str] = []
    for at in range(0, len(content), 3):
        spoilt = bytearray(content)
        spoilt[at] ^= 0xFF
        for text in (bytes(spoilt), content[:at]):
            path.write_bytes(text)
            try:
                assert EmbeddingManifest.load(path) == manifest
            except IntegrityError as error:
                refused.append(str(error))
    assert len(refused) > 1.6 * len(content) / 3
    for told in refused:
        assert told.startswith(f"{path} ") and "\n" not in told
        assert told.endswith("run 'samif run', which computes the embeddings")


def test_the_manifest_of_an_earlier_release_and_none_are_told(tmp_path: Path) -> None:
    (tmp_path / "embeddings.json").write_text('{"images": []}')
    with pytest.raises(IntegrityError, match=r"embeddings.json is JSON, as an earlier release wrote.*run 'samif run'"):
        EmbeddingManifest.load(tmp_path / "embeddings.json")
    with pytest.raises(ObjectMissing, match="does not exist; delete it and run 'samif run'"):
        EmbeddingManifest.load(tmp_path / "embeddings.parquet")
    with pytest.raises(IntegrityError, match="cannot be read"):
        EmbeddingManifest.load(tmp_path)
    done = samif(tmp_path, "store", "gc", "embeddings.json", "--store", "store")
    refusal(done, "embeddings.json is JSON, as an earlier release wrote an embedding manifest; run 'samif run'")


def test_keys_that_do_not_ascend_are_refused() -> None:
    for images in ([sha(0), sha(0)], sorted([sha(0), sha(1)], reverse=True), ["ab"], ["x" * 64]):
        with pytest.raises(ValueError, match="image|hexadecimal"):
            EmbeddingManifest(
                encoder=ENCODER,
                preprocessing=PREPROCESSING,
                shape=SHAPE,
                images=images,  # type: ignore[arg-type]
            )


def test_keys_are_a_sequence_of_strings() -> None:
    names = sorted([sha(index) for index in range(300)] + ["00" * 32, "ff" * 32, "ab" + "00" * 31, "ab" * 31 + "00"])
    keys = ImageKeys.of(iter(names))
    assert list(keys) == names == keys and keys[7] == names[7] and keys[-1] == names[-1] and keys[3:5] == names[3:5]
    assert names[9] in keys and sha(999) not in keys and 3 not in keys
    assert keys.hold([names[5], sha(999), names[0]]).tolist() == [True, False, True]
    assert ImageKeys.of([]).hold([sha(0)]).tolist() == [False]
    assert pickle.loads(pickle.dumps(keys)) == keys  # noqa: S301
    twice = ImageKeys.of([sha(1), sha(0), sha(1)])
    first = {name: [sha(1), sha(0)].index(name) for name in (sha(0), sha(1))}
    assert twice.once().tolist() == [first[name] for name in sorted(first)]


@pytest.mark.parametrize("on_disk", [False, True])
def test_paths_of_two_data_sets(tmp_path: Path, on_disk: bool) -> None:
    sets = []
    for split, count in (("train", 3000), ("val", 5)):
        images = tuple(
            ImageRecord(n, f"{split} {n}.png", 4, 4, hashlib.sha256(f"{split}{n % 2500}".encode()).hexdigest(), ())
            for n in range(count)
        )
        dataset = Dataset(tmp_path / split, (), images)
        dataset.save(tmp_path / f"{split}.parquet")
        sets.append(Dataset.load(tmp_path / f"{split}.parquet", tmp_path / split) if on_disk else dataset)
    paths = ImagePaths(sets)
    every = [(dataset.root / image.file_name, image.sha256) for dataset in sets for image in dataset.images]
    assert list(paths) == every and len(paths) == 3005
    for at in (0, 1500, 2999, 3000, 3004, -1):
        assert paths[at] == every[at]
    out = {every[0][1], every[3001][1]}
    left = [item for item in every if item[1] not in out]
    part = paths.without(out)
    assert list(part) == left and len(part) == len(left) == 3002
    assert part[2998:3001] == left[2998:3001]
