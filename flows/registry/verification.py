"""Verify a version against its card: every file that can be reached is hashed again and compared."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flows.artifacts.embedding_manifest import EmbeddingManifest
from flows.loaders.image_paths import ImagePaths
from flows.loaders.inputs import dataset_of
from flows.registry.registration import params_digest
from flows.registry.registry import Registry, Stored
from flows.registry.version_files import DECODER, REQUIRED
from flows.registry.version_record import metrics_of, tags_of
from flows.workspace.layout import SPLITS, Layout
from samif.config import Params, digest, load_params
from samif.errors import ConfigError, DataError, IntegrityError, ObjectMissing
from samif.evaluate.model import Evaluation
from samif.io.hashing import file_sha256
from samif.versions.card import Card, evaluation_digest

State = Literal["ok", "differs", "not reachable"]


@dataclass(frozen=True)
class Item:
    """One item of a card and whether it holds."""

    name: str
    state: State
    detail: str


def verify(registry: Registry, ref: str, workspace: tuple[Layout, Params] | None = None) -> list[Item]:
    """Check a version against its card.

    What the registry keeps must be there and be as the card says. Of a workspace, only what is at the state that the
    card names can be checked; a workspace that has moved on says nothing against a version.

    Args:
        workspace: also hash the data and images of this workspace.

    Raises:
        ObjectMissing: no such version.
        IntegrityError: its journal was tampered with.
    """
    with tempfile.TemporaryDirectory() as folder:
        stored = registry.stored(ref, Path(folder))
        items = [*_stored_items(stored)]
        if workspace is not None and "card.json" in stored.files:
            items += _workspace_items(stored, *workspace)
        return items


def complaints(items: list[Item]) -> tuple[str, ...]:
    """One clause for each item that differs."""
    return tuple(f"{item.name}: {item.detail}" for item in items if item.state == "differs")


def _stored_items(stored: Stored) -> Iterator[Item]:
    missing = sorted({*REQUIRED, "card.json", DECODER} - stored.files)
    for name in missing:
        yield Item(name.split(".")[0], "differs", "missing from the registry")
    if "card.json" in missing:
        return
    try:
        card = Card.load(stored.folder / "card.json")
    except IntegrityError:
        yield Item("card", "differs", "damaged: it is no card of this schema")
        return
    yield _same("card", card.digest, stored.tags["card_digest"], "the registered card")
    yield from _of_files(stored, card)
    yield _tags(stored, card)
    yield _params(stored, card)
    yield _lock(stored, card)
    yield _journal(stored, card)
    if stored.run_deleted:
        yield Item("run", "not reachable", "deleted in MLflow; restore it there before MLflow removes its files")


def _of_files(stored: Stored, card: Card) -> Iterator[Item]:
    checks: dict[str, tuple[str, Callable[[], Item]]] = {
        "classifier": ("classifier.safetensors", lambda: _file(stored, "classifier", card.identity.classifier)),
        "classes": ("classifier.safetensors", lambda: _classes(stored, card)),
        "decoder": (DECODER, lambda: _file(stored, "decoder", card.decoder.sha256)),
        "evaluation": ("evaluation.json", lambda: _evaluation(stored, card)),
        "metrics": ("evaluation.json", lambda: _metrics(stored)),
    }
    for name, (file, check) in checks.items():
        if file not in stored.files:
            continue
        try:
            yield check()
        except IntegrityError:
            yield Item(name, "differs", f"{file} is damaged")


def _same(name: str, found: str, expected: str, what: str) -> Item:
    if found == expected:
        return Item(name, "ok", found[:12])
    return Item(name, "differs", f"{found[:12]}, but {what} is {expected[:12]}")


def _file(stored: Stored, name: str, expected: str) -> Item:
    return _same(name, file_sha256(stored.folder / f"{name}.safetensors"), expected, "the card's")


def _classes(stored: Stored, card: Card) -> Item:
    from samif.classifier.model import Classifier

    classifier = Classifier.load(stored.folder / "classifier.safetensors")
    if classifier.classes != card.classes:
        return Item("classes", "differs", "the classifier's list is not the card's")
    rows = classifier.row_digests()
    changed = [name for name in card.classes if rows[name] != card.rows[name]]
    if changed:
        return Item("classes", "differs", f"the rows of {', '.join(changed[:5])} are not the card's")
    return Item("classes", "ok", f"{len(card.classes)} classes, each row bit-identical")


def _evaluation(stored: Stored, card: Card) -> Item:
    found = evaluation_digest(Evaluation.load(stored.folder / "evaluation.json"))
    return _same("evaluation", found, card.identity.evaluation, "the card's")


def _metrics(stored: Stored) -> Item:
    """The numbers that the registry's own page shows."""
    expected = metrics_of(Evaluation.load(stored.folder / "evaluation.json"))
    wrong = [name for name, v in expected.items() if not math.isclose(stored.metrics.get(name, math.nan), v)]
    if wrong:
        return Item("metrics", "differs", f"{', '.join(wrong[:3])} in MLflow are not the evaluation's")
    return Item("metrics", "ok", f"{len(expected)} numbers in MLflow")


def _tags(stored: Stored, card: Card) -> Item:
    expected = tags_of(card, int(stored.tags["decoder_version"]))
    wrong = [name for name, value in expected.items() if stored.tags.get(name) != value and name != "card_digest"]
    if wrong:
        return Item("tags", "differs", f"{', '.join(wrong)} in MLflow are not the card's")
    return Item("tags", "ok", f"{len(expected)} tags in MLflow")


def _params(stored: Stored, card: Card) -> Item:
    if "params.yaml" not in stored.files:
        return Item("params", "not reachable", "params.yaml is not kept with the version")
    path, kept = stored.folder / "params.yaml", card.provenance.params_file
    try:
        found = params_digest(load_params(path), card.name)
    except (ConfigError, ValueError):
        found = "unreadable here"
    if found == card.identity.params:
        return Item("params", "ok", found[:12])
    # A later samif reads an old file with keys that it did not have: then its bytes must do.
    if kept is None:
        return Item("params", "not reachable", f"samif {card.provenance.samif} read them with other keys")
    return _same("params", file_sha256(path), kept, "the file that was registered")


def _lock(stored: Stored, card: Card) -> Item:
    if card.provenance.dvc_lock is None or "dvc.lock" not in stored.files:
        return Item("dvc.lock", "not reachable", "not kept with the version")
    return _same("dvc.lock", file_sha256(stored.folder / "dvc.lock"), card.provenance.dvc_lock, "the card's")


def _journal(stored: Stored, card: Card) -> Item:
    """Reading it has checked the chain; what was decided about this version must be about this card."""
    about = [entry for entry in stored.journal.entries if entry.version == stored.number and entry.card is not None]
    other = next((entry for entry in about if entry.card != card.digest), None)
    if other is not None:
        return Item("journal", "differs", f"entry {other.number} is about card {str(other.card)[:12]}")
    return Item("journal", "ok", f"{len(stored.journal.entries)} entries, unbroken")


def _workspace_items(stored: Stored, layout: Layout, params: Params) -> Iterator[Item]:
    try:
        card = Card.load(stored.folder / "card.json")
        datasets = [dataset_of(layout, params, split) for split in SPLITS]
        encoders = {"encoder": (card.encoder.digest, EmbeddingManifest.load(layout.embeddings).encoder.digest)}
        if card.semantic is not None:
            here = EmbeddingManifest.load(layout.semantic).encoder.digest if layout.semantic.exists() else "none"
            encoders["semantic encoder"] = (card.semantic.digest, here)
    except (IntegrityError, ObjectMissing):
        yield Item("data set", "not reachable", "the workspace has no checked images; run 'samif run'")
        return
    found = digest({split: data.digest for split, data in zip(SPLITS, datasets, strict=True)})
    if found != card.identity.dataset:
        yield Item("data set", "not reachable", f"the workspace has moved on to {found[:12]}")
    else:
        yield Item("data set", "ok", found[:12])
        images = ImagePaths(datasets)
        changed = [path.name for path, sha256 in images if not _has(path, sha256)]
        detail = f"{len(changed)} of {len(images)} are gone or changed: {', '.join(changed[:3])}"
        yield Item("images", "differs", detail) if changed else Item("images", "ok", f"{len(images)} files")
    for name, (expected, here) in encoders.items():
        if here == expected:
            yield Item(name, "ok", here[:12])
        else:
            yield Item(name, "not reachable", f"the workspace uses another one, {here[:12]}")


def _has(path: Path, sha256: str) -> bool:
    try:
        return file_sha256(path) == sha256
    except (DataError, ObjectMissing):
        return False
