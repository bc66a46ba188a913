"""The lines of one service: each reference, with its workspace and its shadow, is an application of Ray Serve."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flows.registry.version_ref import parse_ref
from samif.errors import ConfigError

SINGLE = "samif"
"""Name of the application where there is only one, at the root of all paths."""
_PLURALS = {"model": "models", "shadow": "shadows", "canary": "canaries"}
_VERSION = re.compile(r"(?:models:/)?[\w-]+(?:@[\w-]+|/[0-9]+)")


@dataclass(frozen=True)
class Route:
    """What is served and where.

    Attributes:
        ref: what is followed or served.
        root: the workspace in which it is looked up.
        shadow: the version of the shadow deployment.
        canary: the version that answers some of the requests.
        name: of the application; unlike that of any other line of the service.
        route: what its paths begin with.
    """

    ref: str
    root: Path
    shadow: str | None = None
    name: str = SINGLE
    route: str = "/"
    canary: str | None = None


def line_of(ref: str) -> str | None:
    """The line of `NAME@alias` or `NAME/VERSION`; none for a folder or a name alone.

    Raises:
        ConfigError: NAME has capital letters.
    """
    if _VERSION.fullmatch(ref) is None:
        return None
    return parse_ref(ref).line


def routes_of(
    refs: Sequence[str], roots: Sequence[Path], shadows: Sequence[str], canaries: Sequence[str] = ()
) -> list[Route]:
    """The lines of a service: one reference alone at `/`, several at `/LINE` each.

    Args:
        refs: at least one.
        roots: one workspace for all references, or one for each in their order.
        shadows: at most one for each line; beside others it is found by the name of its line.
        canaries: likewise, each a version of its line; a line has a shadow or a canary.

    Raises:
        ConfigError: references, workspaces, shadows and canaries do not go together.
    """
    lines = _lines_of(refs, roots, shadows)
    names = [line_of(line.ref) or line.ref.removesuffix("-classifier") for line in lines]
    of = _by_line(canaries, "canary")
    for name, canary in of.items():
        if name not in names:
            raise ConfigError(f"the canary {canary} is of none of the models {', '.join(refs)}; name a version of one")
        if lines[names.index(name)].shadow is not None:
            raise ConfigError(f"line '{name}' has a shadow and a canary; leave one out, both compare with the champion")
    return [replace(line, canary=of.get(name)) for line, name in zip(lines, names, strict=True)]


def _lines_of(refs: Sequence[str], roots: Sequence[Path], shadows: Sequence[str]) -> list[Route]:
    if len(roots) not in (1, len(refs)):
        raise ConfigError(
            f"{len(refs)} references and {len(roots)} workspaces; give --workspace once for all or once for each "
            "reference, in the same order"
        )
    if len(refs) == 1:
        if len(shadows) > 1:
            raise ConfigError(f"{refs[0]} cannot have {len(shadows)} shadows; give --shadow once")
        return [Route(refs[0], roots[0], *shadows)]
    of = _by_line(shadows, "shadow")
    lines, every = [], list(roots) * (len(refs) // len(roots))
    for (name, ref), root in zip(_by_line(refs, "model").items(), every, strict=True):
        lines.append(Route(ref, root, of.pop(name, None), name, f"/{name}"))
    for shadow in of.values():
        raise ConfigError(f"the shadow {shadow} is of none of the lines {', '.join(line.name for line in lines)}")
    return lines


def _by_line(refs: Sequence[str], what: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for ref in refs:
        name = line_of(ref)
        if name is None:
            alone = "" if what == "canary" else " beside others"
            raise ConfigError(
                f"'{ref}' names no {what}{alone}; write NAME@alias or NAME/VERSION"
                + (", or serve it alone" if alone else "")
            )
        if name in found:
            raise ConfigError(f"line '{name}' has two {_PLURALS[what]}, {found[name]} and {ref}; leave one out")
        found[name] = ref
    return found
