"""A line that can be served: a random decoder behind the shipped encoder, versions that differ in what they know."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import requests
from PIL import Image
from ruamel.yaml import YAML

from flows.registry.registry import Registry
from samif.classifier.model import Classifier, FeatureSpace
from samif.evaluate.model import Evaluation
from samif.io.hashing import file_sha256
from samif.sam.decoder import InstanceDecoder, save_decoder
from samif.sam.encoder import ImageEncoder
from samif.sam.zoo import load_sam
from samif.versions.card import Card, evaluation_digest
from tests.support.handmade import random_tiny
from tests.support.services import free_port, interrupt

TOKEN_WIDTH = 64
TOKEN = "a-token-of-the-tests"
CLASSES = ("bolt", "Mutter M4 ü", "hook", "wing")
H = {part: sha256(part.encode()).hexdigest() for part in ("dataset", "params")}


class ServedLine:
    """A workspace with params.yaml and a registry at `tracking_uri`; none means a copy of the empty `database`."""

    def __init__(self, root: Path, database: Path | None, tracking_uri: str | None = None, line: str = "demo") -> None:
        self.root, self.line = root, line
        (root / ".samif").mkdir(parents=True)
        if database is not None:
            (root / ".samif" / "mlflow.db").write_bytes(database.read_bytes())
        params = {
            "line": line,
            "dataset": {"drawn": {}, "base_classes": list(CLASSES[:2])},
            "registry": {"tracking_uri": tracking_uri},
        }
        with (root / "params.yaml").open("w", encoding="utf-8") as file:
            YAML().dump(params, file)
        self.registry = Registry(tracking_uri, root)
        self.encoder = ImageEncoder(load_sam("tiny")).digest
        self.cards: dict[str, Card] = {}

    @property
    def model(self) -> str:
        return f"{self.line}-classifier"

    def alias(self, alias: str, version: int | None) -> None:
        """Move an alias by hand, as anybody can in MLflow."""
        client = self.registry._store.client
        if version is None:
            client.delete_registered_model_alias(self.model, alias)
        else:
            client.set_registered_model_alias(self.model, alias, str(version))

    def artifacts(self, version: int) -> Path:
        """Where MLflow keeps the files of a version (SQLite only)."""
        logged = self.registry._store.version(self.model, version).tags["model_id"]
        return self.root / ".samif" / "mlartifacts" / "models" / logged / "artifacts"

    def add(
        self, name: str, classes: int, decoder: int = 0, width: int = TOKEN_WIDTH, after: str | None = None,
        background: float = -5.0, temperature: float = 1.0, roll: int = 0,
    ) -> int:  # fmt: skip
        """Register a version that knows the first so many classes, made with the random decoder of that seed.

        Args:
            background: bias of no class; high ones leave everything without a name.
            temperature: low ones make names less certain.
            roll: gives each class the row of the one so many places before it.
        """
        kind = f"{background}-{temperature}-{roll}"
        folder = self.root / "made" / f"{name}-{decoder}-{width}-{classes}-{kind}"
        folder.mkdir(parents=True)
        network = InstanceDecoder.of(random_tiny(decoder))
        network.heads.objectness[-1].bias.fill_(3.0)  # finds something wherever it is prompted
        frozen = self.root / "made" / f"decoder{decoder}"
        save_decoder(network, "tiny", frozen / "decoder.safetensors")
        rng = np.random.default_rng(0)
        space = FeatureSpace(
            ("token",), "cosine", np.zeros(width, np.float32), np.eye(width, dtype=np.float32),
            rng.normal(size=(1, width)).astype(np.float32), temperature, background,  # all masks get names
        )  # fmt: skip
        rows = rng.normal(size=(len(CLASSES), width)).astype(np.float32)[:classes]
        rows = np.roll(rows, roll, axis=0)
        Classifier(space, CLASSES[:classes], rows, np.ones(classes, np.int64)).save(folder / "classifier.safetensors")
        evaluation = _evaluation(name)
        evaluation.save(folder / "evaluation.json")
        session = {"schema": 1, "name": name, "after": after, "shots": 1}
        (folder / "session.json").write_text(json.dumps(session))
        digest = file_sha256(frozen / "decoder.safetensors")
        card = Card.model_validate(
            {
                "line": self.line,
                "name": name,
                "after": after,
                "classes": CLASSES[:classes],
                "identity": H
                | {
                    "encoder": self.encoder,
                    "decoder": digest,
                    "classifier": file_sha256(folder / "classifier.safetensors"),
                    "evaluation": evaluation_digest(evaluation),
                },
                "rows": {c: sha256(rows[i].tobytes()).hexdigest() for i, c in enumerate(CLASSES[:classes])},
                "encoder": {"name": "tiny", "digest": self.encoder, "checkpoint": None},
                "decoder": {"sha256": digest},
                "pretrain_classes": "base",
                "inference": {"propose": {"points": 6}, "evaluate": {"operating_score": 0.0}},
                "provenance": {
                    "created": datetime.now(UTC),
                    "who": "ann",
                    "why": f"add {name}",
                    "commit": None,
                    "dvc_lock": None,
                    "data_revision": None,
                    "samif": "0.1.0",
                },
            }
        )
        number = self.registry.register_decoder(self.line, frozen, digest)
        files = {p.name: p for p in folder.iterdir()}
        previous = self.cards.get(after) if after else None
        done = self.registry.register_classifier(self.line, card, files, number, previous)
        self.cards[name] = card
        return done.version


@dataclass(frozen=True)
class Service:
    """A service that runs: its address, its process, what it has printed so far."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def segment(self, image: bytes, **more: object) -> requests.Response:
        return self.ask("POST", "/v1/segment", data=image, headers={"Content-Type": "image/png"}, **more)

    def of(self, line: str) -> Service:
        """The part of the service that is a line's."""
        return replace(self, url=f"{self.url}/{line}")

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, **more: object) -> requests.Response:
        headers = {"Authorization": f"Bearer {TOKEN}"} | (headers or {})
        return requests.request(method, self.url + path, headers=headers, timeout=60, **more)  # type: ignore[arg-type]

    @property
    def replicas(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = self.ask("GET", "/v1/model").json()["replicas"]
        return found


@contextmanager
def service(line: ServedLine, ref: str, *options: str) -> Iterator[Service]:
    """`samif serve` as a process of its own, ended with SIGINT."""
    port, log = free_port(), line.root / "serve.log"
    command = [sys.executable, "-c", "from flows.cli import main; main()", "serve", ref, "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--workspace", str(line.root), "--threads", "1", *options],
            env=os.environ | {"SAMIF_SERVE_TOKEN": TOKEN, "RAY_ADDRESS": "127.0.0.1:1"},  # not a cluster for it
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        until = time.monotonic() + 180
        while "Ctrl-C" not in log.read_text():
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield Service(f"http://127.0.0.1:{port}", process, log)
    finally:
        interrupt(process)


@contextmanager
def asked(line: Service) -> Iterator[list[tuple[int, str]]]:
    """Asks a line without a pause meanwhile: status and model of every answer."""
    answers: list[tuple[int, str]] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answered = line.segment(png())
            answers.append((answered.status_code, answered.json().get("model", {}).get("name", "")))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        stop.set()
        thread.join()


def slot(served: Service, name: str = "champion") -> dict:
    """What the first replica says of its champion or challenger."""
    return served.ask("GET", "/v1/model").json()["replicas"][0][name]


def number(served: Service, name: str) -> float:
    """A number of /metrics."""
    lines = served.ask("GET", "/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def png(seed: int = 0, width: int = 60, height: int = 40) -> bytes:
    """An image of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _evaluation(name: str) -> Evaluation:
    numbers = dict.fromkeys(("base", "novel", "all"), 50.0)
    return Evaluation.model_validate(
        {
            "name": name,
            "classes": {"base": list(CLASSES[:2]), "novel": []},
            "images": 4,
            "dataset": H["dataset"],
            "ap": numbers,
            "ap50": numbers,
            "per_class": {c: {"ap": 50.0, "ap50": 50.0, "instances": 3, "group": "base"} for c in CLASSES[:2]},
            "base_only": {"images": 2, "ap": 50.0, "ap50": 50.0},
            "unknown": {"auroc": 0.9, "unlabelled_false_positives_per_image": 0.5, "objects": 2},
            "confusion": {"labels": ["background"], "matrix": [[0]]},
            "operating_score": 0.3,
            "seconds": 1.0,
        }
    )
