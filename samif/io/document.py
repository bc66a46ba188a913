"""JSON documents: strict, frozen pydantic models that are written whole and checked when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from samif.errors import IntegrityError, ObjectMissing
from samif.io import files


class Document(BaseModel):
    """A JSON file with a schema number.

    A subclass names itself and the remedy for error messages, and adds its fields:

        class Quarantine(Document):
            WHAT = "a list of broken images"
            REMEDY = "run 'samif run', which writes it"
            images: tuple[BrokenImage, ...]

    Unknown keys and silent conversions are refused, as everywhere in samif (see `samif.config.Strict`).
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, serialize_by_alias=True, validate_by_name=True, validate_by_alias=True
    )

    WHAT: ClassVar[str]
    REMEDY: ClassVar[str]

    schema_version: Literal[1] = Field(default=1, alias="schema")

    def content(self) -> bytes:
        """The document as UTF-8 JSON, keys in the order of the fields; equal documents give equal bytes."""
        return (self.model_dump_json(indent=1) + "\n").encode()

    def save(self, path: Path) -> None:
        """Write the document, whole or not at all; its folder is made where it is missing."""
        files.commit(path, self.content())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and check what `save` wrote.

        Raises:
            ObjectMissing: there is no such file.
            IntegrityError: the file cannot be read, is damaged, or has another schema.
        """
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise ObjectMissing(f"{path} does not exist; {cls.REMEDY}") from None
        except OSError as error:
            raise IntegrityError(f"{path} cannot be read ({error.strerror}); {cls.REMEDY}") from None
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: bytes, origin: str) -> Self:
        """Check the bytes of a document; `origin` names the file or object in the error.

        Raises:
            IntegrityError: the bytes are no such document, or have another schema.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise cls.refusal(error, origin) from None

    @classmethod
    def refusal(cls, error: ValidationError, origin: str) -> IntegrityError:
        """The error for content that is no such document."""
        return IntegrityError(f"{origin} {_reason(error, cls.WHAT)}; {cls.REMEDY}")


def _reason(error: ValidationError, what: str) -> str:
    """What is wrong, as a phrase whose subject is the file."""
    found: list[Any] = list(error.errors())
    schema = next((item for item in found if item["loc"] == ("schema",) and item["type"] == "literal_error"), None)
    if schema is not None:
        return f"has schema {schema['input']!r}, this release of samif reads schema {schema['ctx']['expected']}"
    key = ".".join(str(part) for part in found[0]["loc"]) or "(whole file)"
    return f"is damaged, or not {what}, at {key}: {found[0]['msg']}"
