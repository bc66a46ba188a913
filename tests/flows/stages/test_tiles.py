"""A line whose encoder has tiles, stage by stage on two images made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flows.artifacts.embedding_manifest import EmbeddingManifest
from flows.artifacts.proposal_file import ProposalFile
from flows.comparison.scorer import Scorer
from flows.inference.predict import load_segmenter
from flows.loaders.inputs import source_of
from flows.registry.model_files import find_model
from flows.registry.registration import register_all
from flows.registry.registry import Registry
from flows.serve.settings import Settings
from flows.serve.versions import Source
from samif.classifier.model import Classifier
from samif.dataset.images import read_image
from samif.errors import IntegrityError
from samif.masks.rle import overlaps
from samif.versions.card import Card
from samif.watch.observe import observe_image
from tests.support.small_line import Line, write_small

REQUEST = {"who": "ann", "why": "a test", "commit": None, "dvc_lock": None, "data_revision": None}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    root = tmp_path_factory.mktemp("tiles")
    line = write_small(
        root,
        encoder={"tiles": 2},
        pretrain_decoder={"multimask": True},
        propose={"multimask": True},
        sessions={"s1": {"after": "base", "classes": ["hook"], "shots": 2}},
    )
    line.run("dataset", "embed", "pretrain_decoder", "propose", "train_base", "evaluate_base")
    line.run("session", "evaluate", session="s1")
    return line


@pytest.fixture(scope="module")
def registered(line: Line) -> Registry:
    register_all(line.layout, line.params, REQUEST)
    return Registry(None, line.layout.root)


def test_the_embedding_holds_the_whole_image_and_four_tiles(line: Line) -> None:
    assert EmbeddingManifest.load(line.layout.embeddings).shape == (5 * 256, 16, 16)


def test_images_are_segmented_as_the_stages_do(line: Line) -> None:
    """From the file: the proposals of the stage, but for what float16 in the store rounds."""
    segmenter = load_segmenter(line.bundle("s1"), line.params)
    dataset = source_of(line.layout, line.params, "val").dataset
    for image in dataset.images:
        kept = ProposalFile(line.layout.proposals("val")).of(image)
        pixels = read_image(dataset.path_of(image))
        found = segmenter.propose(pixels, segmenter.embed([pixels])[0])
        assert len(kept) and abs(len(found) - len(kept)) <= 0.1 * len(kept)
        assert np.mean(overlaps(kept.masks, found.masks).max(axis=1) > 0.9) > 0.9


def test_a_session_adds_its_class(line: Line) -> None:
    assert Classifier.load(line.layout.classifier("s1") / "classifier.safetensors").classes == ("bolt", "gear", "hook")


def test_a_version_carries_its_tiles(line: Line, registered: Registry) -> None:
    assert Card.load(registered.download("demo/2") / "card.json").encoder.tiles == 2
    alone = load_segmenter(find_model("demo/2", line.layout, registered), None)
    assert alone.encoder.tiles == 2 and alone.encoder.embedding_shape == (5 * 256, 16, 16)


def test_a_version_is_scored_only_where_the_tiles_are_its_own(line: Line, registered: Registry) -> None:
    assert Scorer(line.layout, line.params, registered).measure("demo/2").evaluation.ap.all is not None
    encoder = line.params.encoder.model_copy(update={"tiles": 1})
    other = line.params.model_copy(update={"encoder": encoder})
    with pytest.raises(IntegrityError, match=r"made with encoder\.tiles 2, but params\.yaml here says 1"):
        Scorer(line.layout, other, registered).measure("demo/2")


def test_a_version_with_tiles_is_served_and_watched(line: Line, registered: Registry, tmp_path: Path) -> None:
    """It is tried once when it is loaded, and then answers as elsewhere."""
    source = Source(Settings("demo@challenger", line.layout.root, tmp_path, None))
    served = source.load(*source.resolve("demo@challenger"), None).segmenter
    dataset = source_of(line.layout, line.params, "val").dataset
    pixels = read_image(dataset.path_of(dataset.images[0]))
    observed = observe_image(served, pixels)
    assert served.encoder.tiles == 2
    assert observed.values["objects"] == len(served.segment(pixels).above(served.default_score))
