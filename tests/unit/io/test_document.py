"""JSON documents: written whole, checked when they are read."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from samif.errors import IntegrityError, ObjectMissing
from samif.io.document import Document


class Note(Document):
    """A document of one field."""

    WHAT = "a note"
    REMEDY = "write it again"

    text: str


def test_saved_and_loaded_is_the_same_document(tmp_path: Path) -> None:
    path = tmp_path / "new" / "note.json"
    Note(text="Maß").save(path)
    assert Note.load(path) == Note(text="Maß")
    assert path.read_text(encoding="utf-8") == '{\n "schema": 1,\n "text": "Maß"\n}\n'
    assert [item.name for item in path.parent.iterdir()] == ["note.json"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", r"is damaged, or not a note, at \(whole file\): .*; write it again"),
        (b'{"schema": 1, "text": "a', r"is damaged, or not a note, at \(whole file\)"),
        (b"[]", r"is damaged, or not a note, at \(whole file\)"),
        (b'{"schema": 1}', "at text: Field required"),
        (b'{"schema": 1, "text": 3}', "at text: Input should be a valid string"),
        (b'{"schema": 1, "text": "a", "more": 1}', "at more: Extra inputs are not permitted"),
        (b'{"schema": 2, "text": "a"}', "has schema 2, this release of samif reads schema 1; write it again"),
        (b"\xff\xfe", "is damaged"),
    ],
)
def test_a_damaged_document_is_refused_in_one_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "note.json"
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=says) as refusal:
        Note.load(path)
    assert str(refusal.value).startswith(str(path)) and "\n" not in str(refusal.value)


def test_a_missing_document_is_another_error(tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing, match=r"note\.json does not exist; write it again"):
        Note.load(tmp_path / "note.json")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="cannot be read"):
        Note.load(tmp_path)


def test_a_document_is_frozen_and_strict() -> None:
    with pytest.raises(ValidationError):
        Note(text="a").text = "b"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Note(text=3)  # type: ignore[arg-type]
