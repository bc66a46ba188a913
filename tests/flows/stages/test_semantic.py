"""A line with a semantic encoder, stage by stage on two images made by hand; the encoder's weights are random."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from flows.artifacts.embedding_manifest import EmbeddingManifest
from flows.artifacts.proposal_file import ProposalFile
from flows.comparison.scorer import Scorer
from flows.inference.image_files import find_images
from flows.inference.predict import load_segmenter, predict
from flows.loaders.inputs import semantic_of, source_of, store_of
from flows.registry.model_files import find_model
from flows.registry.registration import register_all
from flows.registry.registry import Registry
from flows.registry.verification import complaints, verify
from flows.serve.settings import Settings
from flows.serve.versions import Source as Versions
from flows.store.gc import stat
from flows.watch.reference import References
from flows.watch.stream import StreamObserver
from flows.workspace.dvc_yaml import render_pipeline
from flows.workspace.edit import add_session
from flows.workspace.layout import Layout
from samif.classifier.model import Classifier
from samif.config import CocoSource, load_params
from samif.dataset.images import read_image
from samif.errors import SamifError
from samif.inference.model import Model
from samif.io.hashing import file_sha256
from samif.masks.patch_pooling import mean_under
from samif.versions.card import Card
from tests.support.semantic_checkpoints import SMALL, checkpoint
from tests.support.small_line import Line, draw, write, write_small

SIZE, CELLS, WIDTH = 64, 4, 192
REQUEST = {"who": "ann", "why": "a test", "commit": None, "dvc_lock": None, "data_revision": None}
"""What registration asks of a run's record."""


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """Base classifier and session s1, both with all three parts of features."""
    root = tmp_path_factory.mktemp("semantic")
    weights = checkpoint(root / "small.safetensors")
    line = write_small(
        root,
        semantic={
            "model": SMALL, "checkpoint": str(weights), "sha256": file_sha256(weights), "size": SIZE,
        },
        train_base={"features": ["token", "pooled", "semantic"]},
        sessions={"s1": {"after": "base", "classes": ["hook"], "shots": 2}},
    )  # fmt: skip
    line.run("dataset")
    line.changed(semantic=None, train_base={}).run("embed")
    # what the first encoder saw is there; of the second there is more than one shard, so that Ray's workers encode
    line.changed(embed={"shard_images": 1}).run("embed")
    line = write(root / "ws", line.params.model_dump())
    line.run("pretrain_decoder", "propose", "train_base", "evaluate_base")
    line.run("session", "evaluate", session="s1")
    return line


def test_every_image_is_embedded_by_both_encoders_in_one_store(line: Line) -> None:
    plain, semantic = (EmbeddingManifest.load(p) for p in (line.layout.embeddings, line.layout.semantic))
    assert plain.images == semantic.images and len(plain.images) == 4
    encoder = semantic_of(line.params.semantic)  # type: ignore[arg-type]
    assert (semantic.encoder.name, semantic.encoder.digest) == (SMALL, encoder.digest)
    assert semantic.preprocessing == encoder.preprocessing_digest and semantic.shape == (WIDTH, CELLS, CELLS)
    assert {row.encoder for row in stat(store_of(line.layout, line.params).storage)} == {
        plain.encoder.digest, semantic.encoder.digest,
    }  # fmt: skip
    source = source_of(line.layout, line.params, "train")
    for image in source.dataset.images:
        pixels = np.asarray(Image.open(source.dataset.path_of(image)).convert("RGB"))
        torch.testing.assert_close(source.semantic(image), encoder.encode([pixels])[0], atol=5e-3, rtol=5e-3)


def test_what_is_in_the_store_is_not_computed_again(line: Line) -> None:
    shards = {path: path.stat().st_mtime_ns for path in line.layout.state.rglob("*.safetensors")}
    before = line.layout.semantic.read_bytes()
    line.run("embed")
    assert line.layout.semantic.read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in line.layout.state.rglob("*.safetensors")} == shards


def test_a_missing_checkpoint_is_said_before_anything_is_embedded(line: Line, tmp_path: Path) -> None:
    section = line.params.model_dump()["semantic"] | {"checkpoint": str(tmp_path / "gone.pth")}
    other = write(tmp_path / "ws", line.params.model_dump() | {"semantic": section})
    other.run("dataset")
    with pytest.raises(SamifError, match=r"gone\.pth: there is no such checkpoint .* correct semantic\.checkpoint"):
        other.run("embed")
    assert not other.layout.embeddings.exists() and not list(other.layout.root.rglob("*.safetensors"))


def test_proposals_carry_features_pooled_under_their_masks(line: Line) -> None:
    source = source_of(line.layout, line.params, "val")
    proposals = ProposalFile(line.layout.proposals("val"))
    for image in source.dataset.images:
        found = proposals.of(image)
        assert len(found) and found.semantic is not None and found.semantic.shape == (len(found), WIDTH)
        features = source.semantic(image)
        assert features is not None
        np.testing.assert_array_equal(found.semantic, mean_under(features, found.masks))


def test_the_classifier_takes_all_parts_and_a_session_keeps_its_rows(line: Line) -> None:
    base, s1 = (Classifier.load(line.layout.classifier(n) / "classifier.safetensors") for n in ("base", "s1"))
    assert base.space.parts == s1.space.parts == ("token", "pooled", "semantic")
    assert s1.classes == ("bolt", "gear", "hook")
    rows = s1.row_digests()
    assert {name: rows[name] for name in base.classes} == base.row_digests()


def test_shots_of_their_own_are_encoded_by_both(line: Line, tmp_path: Path) -> None:
    """A session whose images nobody has embedded."""
    shutil.copytree(line.layout.root, tmp_path / "ws")
    given = draw(tmp_path / "new", 2, ("hook",))
    write(tmp_path / "ws", line.params.model_dump() | {"sessions": {}})
    add_session(tmp_path / "ws", "own", ["hook"], shots=4, source=CocoSource(**given))
    other = Line(Layout(tmp_path / "ws"), load_params(tmp_path / "ws" / "params.yaml"))
    other.run("session", session="own")
    found = Classifier.load(other.layout.classifier("own") / "classifier.safetensors")
    assert found.classes == ("bolt", "gear", "hook") and found.counts[-1] == 4


def test_images_are_segmented_as_the_stages_do(line: Line, tmp_path: Path) -> None:
    segmenter = load_segmenter(line.bundle("s1"), line.params)
    assert segmenter.semantic is not None and segmenter.semantic.embedding_shape == (WIDTH, CELLS, CELLS)
    source = source_of(line.layout, line.params, "val")
    paths = [source.dataset.path_of(image) for image in source.dataset.images]
    for image, path in zip(source.dataset.images, paths, strict=True):
        pixels, features = read_image(path), source.semantic(image)
        found = segmenter.propose(pixels, segmenter.embed([pixels])[0])
        assert len(found) and found.semantic is not None and features is not None
        np.testing.assert_allclose(found.semantic, mean_under(features, found.masks), atol=5e-3, rtol=5e-3)
    done = predict(Model(segmenter), find_images(paths).images, tmp_path / "out", 0.0).predictions
    results = json.loads((tmp_path / "out" / "instances.json").read_text())
    assert [entry["file_name"] for entry in results["images"]] == ["1.png", "2.png"]
    assert len(results["annotations"]) == sum(len(prediction.detections) for prediction in done)


# Registered versions


@pytest.fixture(scope="module")
def registered(line: Line) -> Registry:
    register_all(line.layout, line.params, REQUEST)
    return Registry(None, line.layout.root)


def test_the_card_names_the_encoder_and_the_version_verifies(line: Line, registered: Registry) -> None:
    card = Card.load(registered.download("demo/2") / "card.json")
    manifest = EmbeddingManifest.load(line.layout.semantic)
    assert card.semantic is not None and line.params.semantic is not None
    assert card.semantic.model_dump() == {
        "name": SMALL,
        "digest": manifest.encoder.digest,
        "preprocessing": manifest.preprocessing,
        "checkpoint": line.params.semantic.sha256,
        "size": SIZE,
    }
    items = verify(registered, "demo/2", (line.layout, line.params))
    assert complaints(items) == ()
    assert [item.state for item in items if item.name == "semantic encoder"] == ["ok"]
    assert register_all(line.layout, line.params, REQUEST)["classifiers"] == {"base": 1, "s1": 2}


def test_a_version_is_served_only_with_its_encoder(line: Line, registered: Registry, tmp_path: Path) -> None:
    loads: list[str] = []
    versions = Versions(Settings("demo/2", line.layout.root, tmp_path, None), loads.append)
    first = versions.load("demo-classifier", 1, None)
    second = versions.load("demo-classifier", 2, first)
    assert loads == ["encoder", "decoder", "classifier", "classifier"], "the encoders stay for the next version"
    assert second.segmenter.semantic is first.segmenter.semantic is not None
    assert second.digests["semantic"] == first.digests["semantic"]
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    alone = load_segmenter(find_model("demo/2", line.layout, registered), line.params)
    assert second.segmenter.segment(image).labels == alone.segment(image).labels


def test_a_version_is_scored_again_in_its_workspace_only(line: Line, registered: Registry) -> None:
    measured = Scorer(line.layout, line.params, registered).measure("demo/2")
    kept = json.loads((line.layout.evaluation("s1") / "evaluation.json").read_text())
    assert measured.evaluation.ap.all == kept["ap"]["all"]
    other = line.params.model_copy(update={"semantic": None})
    with pytest.raises(SamifError, match=f"was made with semantic encoder '{SMALL}' .* whose features are not here"):
        Scorer(line.layout, other, registered).measure("demo/2")


def test_an_image_is_observed_with_the_features_of_both_encoders(line: Line, registered: Registry) -> None:
    """A file of the stream, and the same image in the reference, which the stages embedded."""
    made = References(line.layout, line.params, registered).from_validation("demo/2")
    observer = StreamObserver(find_model("demo/2", line.layout, registered), line.params)
    dataset = source_of(line.layout, line.params, "val").dataset
    assert len(made.observations) == len(dataset.images) == 2
    for image, before in zip(dataset.images, made.observations, strict=True):
        now = observer.observe(dataset.path_of(image))
        assert now.names == before.names
        assert now.values == pytest.approx(before.values, abs=0.02)
        for name in ("embedding", "features", "uncertainty"):
            np.testing.assert_allclose(getattr(now, name), getattr(before, name), atol=0.02)


def test_without_the_checkpoint_one_sentence_says_what_to_give(
    line: Line, registered: Registry, tmp_path: Path
) -> None:
    bundle = find_model("demo/2", line.layout, registered)
    assert line.params.semantic is not None
    with pytest.raises(
        SamifError, match=rf"the checkpoint of semantic encoder '{SMALL}' \(SHA-256 {line.params.semantic.sha256}\)"
    ):
        load_segmenter(bundle, None)
    with pytest.raises(SamifError, match=r"gone\.pth: there is no such checkpoint of semantic encoder"):
        load_segmenter(bundle, None, semantic_checkpoint=str(tmp_path / "gone.pth"))
    other = checkpoint(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(SamifError, match=f"is not the expected file: SHA-256 expected {line.params.semantic.sha256}"):
        load_segmenter(bundle, None, semantic_checkpoint=str(other))
    given = load_segmenter(bundle, None, semantic_checkpoint=line.params.semantic.checkpoint)
    assert given.semantic is not None and bundle.card is not None and bundle.card.semantic is not None
    assert given.semantic.digest == bundle.card.semantic.digest
    with pytest.raises(SamifError, match="has no card that says which; use it in the workspace"):
        load_segmenter(line.bundle("s1"), None)


def test_a_session_refuses_another_encoder_than_the_base_was_made_with(line: Line, tmp_path: Path) -> None:
    shutil.copytree(line.layout.root, tmp_path / "ws")
    other = checkpoint(tmp_path / "other.pth", seed=1)
    section = {"model": SMALL, "checkpoint": str(other), "sha256": file_sha256(other), "size": SIZE}
    changed = Line(Layout(tmp_path / "ws"), line.params).changed(semantic=section)
    with pytest.raises(SamifError, match=r"is not the one that .*semantic\.parquet was made with"):
        changed.run("session", session="s1")


# Without a semantic encoder


def test_a_line_without_it_is_what_it_was(line: Line, tmp_path: Path) -> None:
    """Embedding manifest and proposals bit for bit, no trace in dvc.yaml, card or parameters."""
    shutil.copytree(line.layout.root, tmp_path / "ws")
    content = line.params.model_dump(mode="json", exclude={"semantic"})
    content["train_base"]["features"] = ["token", "pooled"]
    plain = write(tmp_path / "ws", content)
    plain.run("embed", "propose", "train_base", "evaluate_base")
    plain.run("session", "evaluate", session="s1")
    assert plain.layout.embeddings.read_bytes() == line.layout.embeddings.read_bytes()
    assert not plain.layout.semantic.exists()
    columns = [pq.read_table(one.layout.proposals("val")) for one in (plain, line)]
    assert columns[0].equals(columns[1].drop_columns(["semantic"]))
    assert "semantic" not in render_pipeline(plain.params) and "semantic" in render_pipeline(line.params)
    ref = f"demo/{register_all(plain.layout, plain.params, REQUEST)['classifiers']['s1']}"
    registry = Registry(None, plain.layout.root)
    assert "semantic" not in (registry.download(ref) / "card.json").read_text()
    segmenter = load_segmenter(find_model(ref, plain.layout, registry), plain.params)
    assert segmenter.semantic is None
