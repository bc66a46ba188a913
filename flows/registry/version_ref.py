"""References to versions as people write them: NAME, NAME/VERSION or NAME@alias."""

from __future__ import annotations

import re
from dataclasses import dataclass

from samif.errors import ConfigError

_REF = re.compile(r"(?:models:/)?([a-z0-9][a-z0-9_-]*)(?:@([\w-]+)|/([0-9]+))?")
_NAME = re.compile(r"(?:models:/)?[^@/]*")


@dataclass(frozen=True)
class VersionRef:
    """A classifier version of `line`: the one that `alias` names, or `number`; neither means the newest."""

    line: str
    alias: str | None = None
    number: int | None = None

    @property
    def model(self) -> str:
        """Name of the registered model."""
        return f"{self.line}-classifier"


def parse_ref(ref: str) -> VersionRef:
    """Read a reference; NAME is the line or `<line>-classifier`, and `models:/` may stand in front.

    Raises:
        ConfigError: it has another form.
    """
    match = _REF.fullmatch(ref)
    if match is None:
        lowered = _NAME.sub(lambda name: name[0].lower(), ref, count=1)
        if _REF.fullmatch(lowered):
            raise ConfigError(
                f"'{ref}' does not name a version: the name of a line has no capital letters, also if its folder has "
                f"some; write '{lowered}'"
            )
        raise ConfigError(f"'{ref}' does not name a version; write NAME, NAME/VERSION or NAME@alias")
    name, alias, number = match.groups()
    return VersionRef(name.removesuffix("-classifier"), alias, int(number) if number else None)
