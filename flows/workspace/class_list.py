"""Class names in a list on the command line: `bolt,screw, M4,"a,b"`."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from samif.errors import ConfigError

_QUOTED = re.compile(r'\s*"((?:[^"]|"")*)"\s*(?:,|$)')


def class_names(text: str, known: Collection[str]) -> list[str]:
    """The names in a list whose separator, the comma, may be part of a name.

    At each place the longest name of `known` counts, so that `screw, M4` is one class where there is a class of that
    name. A name in double quotes is taken as it is, `""` in it standing for one quote. Blanks around a name and their
    number inside it do not count.

    Args:
        known: the classes of the annotation file.

    Raises:
        ConfigError: a quote does not end.
    """
    of_form = {_form(name): name for name in known} | {name: name for name in known}
    names: list[str] = []
    rest = text
    while rest.strip(" ,"):
        if _longest(rest, of_form)[1] is None:
            rest = rest.lstrip(" ,")
        end, name = _longest(rest, of_form)
        if name is None and rest.lstrip().startswith('"'):
            quoted = _QUOTED.match(rest)
            if quoted is None:
                raise ConfigError(f"a quote in the classes '{text}' does not end before a comma; close it")
            end, name = quoted.end(), quoted[1].replace('""', '"')
            name = _known(name, of_form) or name
        elif name is None:
            first, comma, _ = rest.partition(",")
            end, name = len(first) + len(comma), first.strip()
        names.append(name)
        rest = rest[end:]
    return names


def _longest(text: str, of_form: dict[str, str]) -> tuple[int, str | None]:
    """End of the longest known name that the text starts with and a comma or the end follows, and that name."""
    for end in sorted((*(found.start() for found in re.finditer(",", text)), len(text)), reverse=True):
        if (name := _known(text[:end], of_form)) is not None:
            return end + 1, name
    return 0, None


def _known(text: str, of_form: dict[str, str]) -> str | None:
    """The name that is written so, else the one that differs in blanks only."""
    return of_form.get(text.strip()) or of_form.get(_form(text))


def _form(name: str) -> str:
    return re.sub(r"\s*,\s*", ",", " ".join(name.split()))


def resolved(classes: str | Sequence[str], known: Collection[str]) -> list[str]:
    """Names that are a list already, or the text of one."""
    return class_names(classes, known) if isinstance(classes, str) else list(classes)
