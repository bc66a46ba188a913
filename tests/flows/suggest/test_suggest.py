"""`samif suggest` with a model from a folder: a random decoder behind the shipped encoder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.artifacts.kept_answers import KeptAnswers
from flows.inference.image_files import find_images
from flows.inference.source import find
from flows.loaders.inputs import store_of
from flows.store import Namespace
from flows.suggest.stored import StoredEmbeddings
from flows.suggest.suggest import newest_classifier, suggest, workspace_looks
from samif.dataset.formats import import_labels
from samif.dataset.images import read_image
from samif.errors import ServiceUnavailable
from samif.inference.load import load_segmenter
from samif.inference.segment import UNKNOWN, Embedded, Segmenter
from samif.io.hashing import file_sha256
from tests.support.console import refusal, samif
from tests.support.kept import answer_to, keep
from tests.support.random_model import save_random_model
from tests.support.small_line import Line, write_small
from tests.support.small_line import draw as draw_labelled

COLOURS = ((220, 40, 40), (40, 220, 40), (40, 40, 220))


def draw(path: Path, kind: int, seed: int) -> Path:
    """A scene of one of three kinds: squares of a colour on noise."""
    rng = np.random.default_rng([kind, seed])
    pixels = rng.integers(60, 70, (64, 96, 3), dtype=np.uint8)
    for _ in range(3):
        y, x = rng.integers(0, 40), rng.integers(0, 70)
        pixels[y : y + 20, x : x + 20] = COLOURS[kind]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a folder of images of three kinds with copies and files that are no images, and labelled images."""
    root = tmp_path_factory.mktemp("place")
    save_random_model(root / "model")
    for kind in range(3):
        for seed in range(3):
            draw(root / "photos" / f"{kind}-{seed}.png", kind, seed)
    shutil.copy(root / "photos" / "0-0.png", root / "photos" / "copy of 0-0.png")
    with Image.open(root / "photos" / "1-1.png") as image:
        image.save(root / "photos" / "1-1 smaller.jpg", quality=90)
    (root / "photos" / "broken.png").write_bytes(b"no image")
    (root / "photos" / "notes.txt").write_text("notes")
    (root / "labelled").mkdir()
    shutil.copy(root / "photos" / "2-0.png", root / "labelled" / "x.png")
    return root


def test_suggestions_are_unlabelled_and_no_copies(place: Path) -> None:
    found = samif(place, "suggest", "photos", "--model", "model", "-n", "20", "--labelled", "labelled", "--json").json
    names = [image["name"] for image in found["images"]]
    assert len(names) == len(set(names)) and (found["candidates"], found["labelled"]) == (10, 1)
    assert "2-0.png" not in names
    assert len({"0-0.png", "copy of 0-0.png"} & set(names)) <= 1
    assert len({"1-1.png", "1-1 smaller.jpg"} & set(names)) <= 1
    reasons = {Path(s["path"]).name: s["reason"] for s in found["skipped"]}
    assert reasons["2-0.png"] == "labelled already" and set(reasons) == {"2-0.png", "broken.png", "notes.txt"}
    assert all(image["why"] and image["by"] in ("typical", "uncertain") for image in found["images"])


@pytest.mark.parametrize("strategy", ["typical", "uncertain", "random"])
def test_the_table_says_why_and_a_seed_repeats_it(strategy: str, place: Path) -> None:
    words = ("suggest", "photos", "--model", "model", "-n", "3", "--strategy", strategy)
    done = samif(place, *words)
    assert done.code == 0, done.err
    assert done.out == samif(place, *words).out
    assert "3 of 11 images; 0 are labelled already" in done.out
    assert "skipped 1 (no image by the extension): photos/notes.txt" in done.out


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """A workspace whose stages have run, and a folder of images beside it, two of which are its own."""
    root = tmp_path_factory.mktemp("line")
    line = write_small(root)
    line.run("dataset", "embed", "pretrain_decoder", "propose", "train_base")
    for number in range(3):
        shutil.copytree(draw_labelled(root / f"more {number}", 10 + number)["images"], root / "photos" / str(number))
    shutil.copy(root / "train" / "images" / "1.png", root / "photos" / "known.png")
    shutil.copy(root / "val" / "images" / "2.png", root / "photos" / "known too.png")
    return line


@pytest.mark.parametrize(
    ("format_", "source"), [("coco", "instances.json"), ("labelme", "."), ("cvat", "annotations.xml")]
)
def test_proposed_labels_of_the_newest_classifier_are_imported(
    format_: str, source: str, line: Line, tmp_path: Path
) -> None:
    out = tmp_path / "next"
    photos = line.layout.root.parent / "photos"
    words = ("suggest", photos, "--recursive", "-n", "3", "--out", out, "--format", format_, "--json")
    found = samif(line.layout.root, *words).json
    assert (found["candidates"], found["labelled"]) == (6, 4)
    assert {Path(s["path"]).name for s in found["skipped"]} == {"known.png", "known too.png"}
    done = import_labels(out / source, tmp_path / "labels.json")
    assert done.format == format_
    digests = {file_sha256(Path(image["image"])) for image in found["images"]}
    assert {image.sha256 for image in done.dataset.images} == digests and len(digests) >= 2
    names = {a.category for image in done.dataset.images for a in image.annotations}
    assert names and names <= {"bolt", "gear", UNKNOWN}


def test_stored_embeddings_give_the_features_of_the_files(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for what float16 in the store rounds."""
    model = find(newest_classifier(line.layout, line.params), line.layout.root)
    segmenter = load_segmenter(model)
    stored = dict(workspace_looks(segmenter, model, line.layout, line.params))
    monkeypatch.setattr("flows.suggest.suggest._is_own", lambda *_: False)
    computed = dict(workspace_looks(segmenter, model, line.layout, line.params))
    assert stored.keys() == computed.keys() and len(stored) == 4
    for sha256, look in stored.items():
        vector, again = look.features, computed[sha256]
        half = len(vector) // 2  # the whole image; of the proposals, one may pass a threshold on one side only
        assert np.allclose(vector[:half], again.features[:half], atol=1e-3)
        assert vector @ again.features >= 0.99 * 2 and np.array_equal(look.thumbnail, again.thumbnail)


def test_images_that_a_service_kept_are_suggested(place: Path, tmp_path: Path) -> None:
    names = ["0-0.png", "copy of 0-0.png", "1-1.png", "1-1 smaller.jpg", "2-2.png"]
    for name in names:
        body = (place / "photos" / name).read_bytes()
        assert keep(tmp_path / "kept", body, answer_to(body))
    words = ("suggest", tmp_path / "kept", "--model", "model", "-n", "5", "--out", tmp_path / "next", "--json")
    found = samif(place, *words).json
    assert found["candidates"] == 5 and found["skipped"] == [] and len(found["images"]) == 3
    done = import_labels(tmp_path / "next" / "instances.json", tmp_path / "labels.json", allow_empty=True)
    answers = {answer.sha256: answer.image for answer in KeptAnswers(tmp_path / "kept").answers()}
    assert all(answers[image.sha256] for image in done.dataset.images)


def test_embeddings_in_the_store_are_not_computed_again(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `samif store add` leaves them."""
    model = find(newest_classifier(line.layout, line.params), line.layout.root)
    segmenter = load_segmenter(model)
    images = find_images([line.layout.root.parent / "photos"], recursive=True).images
    computed = suggest(segmenter, model, images, (), line.layout, 6, "random")
    pixels = [read_image(image.path) for image in images]
    digests = [file_sha256(image.path) for image in images]
    namespace = store_of(line.layout, line.params).namespace(
        segmenter.encoder.digest, segmenter.encoder.preprocessing_digest
    )
    for digest, seen in list(zip(digests, segmenter.embed(pixels), strict=True))[:-1]:
        namespace.write([digest], seen.embedding[None])
    encoded: list[int] = []
    embed = Segmenter.embed

    def counted(self: Segmenter, given: list[Any]) -> list[Embedded]:
        encoded.append(len(given))
        return embed(self, given)

    monkeypatch.setattr(Segmenter, "embed", counted)
    stored = suggest(segmenter, model, images, (), line.layout, 6, "random")
    assert encoded == [1] and stored.images == computed.images
    assert stored.candidates == computed.candidates == 6


def test_a_store_that_cannot_be_read_is_told(
    line: Line, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unreachable(*_: object) -> list[str]:
        raise ServiceUnavailable("the bucket does not answer")

    monkeypatch.setattr(Namespace, "missing", unreachable)
    model = find(newest_classifier(line.layout, line.params), line.layout.root)
    encoder = load_segmenter(model).encoder
    assert StoredEmbeddings(line.layout, line.params, encoder, ["0" * 64]).get("0" * 64) is None
    assert "the bucket does not answer" in caplog.text


def test_files_of_a_pattern_and_refusals(place: Path, tmp_path: Path) -> None:
    files = sorted((place / "photos").glob("0-*.png"))
    found = samif(place, "suggest", *files, "--model", "model", "-n", "2", "--json").json
    assert found["candidates"] == 3
    refusal(samif(place, "suggest", "nowhere", "--model", "model"), "nowhere does not exist")
    refusal(samif(place, "suggest", "photos"), "params.yaml", "does not exist")
    (tmp_path / "mine.txt").write_text("mine")
    refusal(samif(place, "suggest", "photos", "--model", "model", "--out", tmp_path), "is not empty")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert samif(place, "suggest", "photos", "--model", "model", "-n", "0").code == 2
