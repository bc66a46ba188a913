"""The files of a classifier version: which there must be, and whether they belong together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samif.errors import IntegrityError, ObjectMissing
from samif.evaluate.model import Evaluation
from samif.io.hashing import file_sha256
from samif.versions.card import Card, evaluation_digest

KEPT = ("card.json", "classifier.safetensors", "evaluation.json", "session.json", "params.yaml", "dvc.lock")
"""Files of a version that its verification checks."""
REQUIRED = ("classifier.safetensors", "session.json", "evaluation.json")
DECODER = "decoder.safetensors"


def checked(line: str, card: Card, files: Mapping[str, Path]) -> tuple[Evaluation, dict[str, Any]]:
    """Read evaluation and session of a version to be, and check that card and files are of one piece."""
    missing = [name for name in REQUIRED if name not in files]
    missing += [str(path) for path in files.values() if not path.is_file()]
    if missing:
        raise ObjectMissing(f"'{card.name}' cannot be registered without {', '.join(missing)}; run its stages again")
    evaluation = Evaluation.load(files["evaluation.json"])
    try:
        session: dict[str, Any] = json.loads(files["session.json"].read_text(encoding="utf-8"))
        names = {"the card": card.name, "session.json": session["name"], "evaluation.json": evaluation.name}
    except (OSError, ValueError, KeyError, TypeError):
        raise IntegrityError(f"{files['session.json']} is not a session's record; run the session again") from None
    if len(set(names.values())) > 1 or card.line != line:
        said = ", ".join(f"{part} is of '{name}'" for part, name in names.items())
        raise IntegrityError(
            f"line '{line}' got files that do not belong together ({said}, line '{card.line}'); run again"
        )
    for name, found, expected in (
        ("classifier.safetensors", file_sha256(files["classifier.safetensors"]), card.identity.classifier),
        ("evaluation.json", evaluation_digest(evaluation), card.identity.evaluation),
    ):
        if found != expected:
            raise IntegrityError(f"{files[name]} is not the file that the card of '{card.name}' describes; run again")
    return evaluation, session


def check(folder: Path, digest: str) -> None:
    """Check a fetched version: its card has that digest, and both weight files are the card's."""
    card = Card.load(folder / "card.json")
    if card.digest != digest:
        raise IntegrityError(
            f"{folder / 'card.json'} is not the registered card {digest[:12]}; register the version again"
        )
    card.check_files(folder / "classifier.safetensors", folder / DECODER)


def is_whole(folder: Path, digest: str) -> bool:
    """Whether a folder holds all of that version, undamaged."""
    try:
        check(folder, digest)
    except (IntegrityError, ObjectMissing):
        return False
    return all((folder / name).is_file() for name in REQUIRED)
