"""A small line with everything that a registry command looks at: real images, proposals, classifiers, scores.

Every image shows one object of each class at a place of its own. A classifier knows some of the classes by the
direction of their tokens; half of the bolts lean a little to one side, so that a class which lies on that side takes
them: base AP falls although every old row is bit-identical.
"""

from __future__ import annotations

import json
import shutil
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from ruamel.yaml import YAML
from safetensors.numpy import save_file

from flows.artifacts.embedding_manifest import EmbeddingManifest, EncoderIdentity
from flows.artifacts.proposal_file import ProposalFile, write_proposals
from flows.artifacts.quarantine import Quarantine
from flows.loaders.inputs import dataset_of
from flows.registry.registration import params_digest
from flows.registry.registry import Registry
from flows.workspace.layout import Layout
from samif.config import Params, digest, load_params
from samif.dataset.model import Category, Dataset
from samif.evaluate.evaluate import evaluate
from samif.io.hashing import file_sha256
from samif.versions.card import Card, evaluation_digest
from tests.support.handmade import annotation, classifier, image, proposals, rectangle

SIDE, IMAGES, WIDTH = 64, 24, 8
PLACES = [rectangle((SIDE, SIDE), top, left, 24, 24) for top in (4, 36) for left in (4, 36)]
CLASSES = ("bolt", "gear", "hook", "wing")
BACKGROUND = (9.0 * np.eye(WIDTH)[7]).tolist()
ROWS = {name: (9.0 * np.eye(WIDTH)[i]).tolist() for i, name in enumerate(CLASSES)}
THIEF = (np.array(ROWS["bolt"]) + 3.0 * np.eye(WIDTH)[5]).tolist()
"""A row for `wing` that takes the bolts which lean to its side, and finds no wing."""
HEX = "0" * 64


class TaggedLine:
    """A workspace whose stages have run, and its registry: at an address, or a copy of an empty SQLite one."""

    def __init__(self, root: Path, registry: str | Path, line: str = "demo", **gates: Any) -> None:
        self.layout, self.line = Layout(root), line
        tracking_uri = registry if isinstance(registry, str) else None
        self.layout.state.mkdir(parents=True)
        if isinstance(registry, Path):
            shutil.copy(registry, self.layout.state / "mlflow.db")
        self._write_params(tracking_uri, gates)
        for split, count in (("train", 2), ("val", IMAGES)):
            self._write_images(split, count)
        for stage in ("dataset", "embed"):
            self.layout.quarantine(stage).parent.mkdir(parents=True, exist_ok=True)
            self.layout.quarantine(stage).write_text(
                Quarantine(policy="refuse", images=()).model_dump_json(by_alias=True)
            )
        encoder = EncoderIdentity(name="tiny", digest=HEX)
        EmbeddingManifest(encoder=encoder, preprocessing="p", shape=(256, 8, 8), images=()).save(self.layout.embeddings)
        self.layout.decoder.mkdir(parents=True)
        save_file({"w": np.arange(8, dtype=np.float32)}, self.layout.decoder / "decoder.safetensors")
        self.decoder = file_sha256(self.layout.decoder / "decoder.safetensors")
        self.layout.lock.write_text("stages: {}\n")
        self.val = dataset_of(self.layout, self.params, "val")
        self._write_proposals()
        self.registry = Registry(tracking_uri, root)
        self.cards: dict[str, Card] = {}
        self.rows: dict[str, dict[str, list[float]]] = {}

    def copy(self, root: Path) -> TaggedLine:
        """The same workspace, registry included, in another folder."""
        shutil.copytree(self.layout.root, root)
        twin = copy(self)
        twin.layout, twin.registry = Layout(root), Registry(None, root)
        return twin

    @property
    def params(self) -> Params:
        return load_params(self.layout.params)

    def add(self, name: str, after: str | None = None, **rows: list[float]) -> int:
        """Make, score and register a classifier that knows the classes of `after` and these rows; its version."""
        previous = self.cards.get(after) if after else None
        rows = (self.rows[after] if after else {}) | rows
        self.rows[name] = rows
        head = classifier(rows, BACKGROUND)
        folder = self.layout.root / "made" / name
        head.save(folder / "classifier.safetensors")
        proposed = ProposalFile(self.layout.proposals("val"))
        scored = evaluate(name, self.val, proposed.of, head, ["bolt", "gear"], self.params.evaluate)
        scored.evaluation.save(folder / "evaluation.json")
        (folder / "session.json").write_text(json.dumps({"schema": 1, "name": name, "after": after, "shots": 5}))
        card = self._card(name, after, head.classes, head.row_digests(), folder, scored.evaluation)
        files = {n: folder / n for n in ("classifier.safetensors", "evaluation.json", "session.json")}
        files |= {"params.yaml": self.layout.params, "dvc.lock": self.layout.lock}
        decoder = self.registry.register_decoder(self.line, self.layout.decoder, self.decoder)
        self.cards[name] = card
        return self.registry.register_classifier(self.line, card, files, decoder, previous).version

    def grow(self) -> None:
        """Versions 1 to 4: base; s1 with hook; s2 whose wing steals bolts; s2 again, with a proper wing."""
        assert self.add("base", bolt=ROWS["bolt"], gear=ROWS["gear"]) == 1
        assert self.add("s1", "base", hook=ROWS["hook"]) == 2
        assert self.add("s2", "s1", wing=THIEF) == 3
        assert self.add("s2", "s1", wing=ROWS["wing"]) == 4

    def _card(self, name: str, after: str | None, classes: Any, rows: Any, folder: Path, evaluation: Any) -> Card:
        splits = {split: dataset_of(self.layout, self.params, split).digest for split in ("train", "val")}
        return Card.model_validate(
            {
                "line": self.line,
                "name": name,
                "after": after,
                "classes": classes,
                "identity": {
                    "dataset": digest(splits),
                    "params": params_digest(self.params, name),
                    "encoder": HEX,
                    "decoder": self.decoder,
                    "classifier": file_sha256(folder / "classifier.safetensors"),
                    "evaluation": evaluation_digest(evaluation),
                },
                "rows": rows,
                "encoder": {"name": "tiny", "digest": HEX, "checkpoint": None},
                "decoder": {"sha256": self.decoder},
                "pretrain_classes": "base",
                "inference": {"propose": self.params.propose, "evaluate": self.params.evaluate},
                "provenance": {
                    "created": datetime.now(UTC),
                    "who": "ann",
                    "why": f"add {name}",
                    "commit": "c0ffee",
                    "dvc_lock": file_sha256(self.layout.lock),
                    "params_file": file_sha256(self.layout.params),
                    "data_revision": None,
                    "samif": "0.1.0",
                },
            }
        )

    def _write_params(self, tracking_uri: str | None, gates: dict[str, Any]) -> None:
        content = {
            "line": self.line,
            "dataset": {"drawn": {}, "base_classes": ["bolt", "gear"]},
            "sessions": {
                "s1": {"after": "base", "classes": ["hook"], "shots": 5},
                "s2": {"after": "s1", "classes": ["wing"], "shots": 5},
            },
            "registry": {"tracking_uri": tracking_uri},
            "gates": {"resamples": 200} | gates,
        }
        self.layout.root.mkdir(parents=True, exist_ok=True)
        with self.layout.params.open("w", encoding="utf-8") as file:
            YAML().dump(content, file)

    def _write_images(self, split: str, count: int) -> None:
        folder = self.layout.drawn / split / "images"
        folder.mkdir(parents=True)
        images = []
        for number in range(1, count + 1):
            pixels = np.full((SIDE, SIDE, 3), 90 + number, dtype=np.uint8)
            for place, shade in zip(PLACES, (40, 200, 150, 240), strict=True):
                pixels[place] = shade
            path = folder / f"{number}.png"
            Image.fromarray(pixels).save(path)
            objects = [annotation(10 * number + i, name, PLACES[i]) for i, name in enumerate(CLASSES)]
            images.append(replace(image(number, (SIDE, SIDE), *objects), sha256=file_sha256(path)))
        categories = tuple(Category(i + 1, name) for i, name in enumerate(CLASSES))
        Dataset(folder, categories, tuple(images)).save(self.layout.index(split))

    def _write_proposals(self) -> None:
        tokens = np.array([ROWS[name] for name in CLASSES], dtype=np.float32)
        leaning = tokens + np.array([[0, 0, 0, 0, 0, 2, 0, 0], *([[0] * WIDTH] * 3)], dtype=np.float32)
        write_proposals(
            self.layout.proposals("val"),
            ((p, proposals(PLACES, leaning if p.id % 2 else tokens)) for p in self.val.images),
        )
