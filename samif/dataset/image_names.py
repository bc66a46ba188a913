"""The file of an image folder that a name in a COCO file means.

Labelling tools write names for their own server, disk or system: `images\\a.png`, `C:\\work\\images\\a.png`,
`/data/upload/1/0f3a9c1e-a.png`, `https://host/bucket/a%20b.png`, or `A.PNG` for `a.png`.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of an uploaded file."""

_NORMAL = re.compile(r"[^/\\\0]+(/[^/\\\0]+)*")
_DOTS = re.compile(r"(^|/)\.\.?(/|$)")

_SHOWN = 3

BY_END = "names that lead to no file, whose images were found in the folder by the end of the path"
DEEPER = "names without a folder, whose images were found in a sub-folder"
CASE = "names that differ from those of the files in capital letters"
UPLOAD = "names with a prefix of Label Studio that the files do not have"


@dataclass(frozen=True, slots=True)
class Match:
    """The file of one name.

    Attributes:
        path: relative to the folder, with forward slashes; "" where there is no such file.
        how: one of the constants above, if name and file differ by more than their spelling.
        what, kind, remedy: what is wrong with the name if there is no file, and without the values of this one.
    """

    path: str = ""
    how: str = ""
    what: str = ""
    kind: str = ""
    remedy: str = ""


class ImageFolder:
    """Finds the files that names mean. Links are followed wherever they lead.

    Args:
        root: the folder; relative paths are those of the current directory.
    """

    def __init__(self, root: Path) -> None:
        self._roots = tuple(dict.fromkeys((os.path.abspath(root), os.path.realpath(root))))

    def find_all(self, names: Iterable[str]) -> dict[str, Match]:
        """The match of every name. A file that was only inferred for one name is not given to another, too."""
        found = {name: self.find(name) for name in names}
        first_of: dict[str, str] = {}
        shared: dict[str, list[str]] = {}
        for name, match in found.items():
            if match.path and (first := first_of.setdefault(match.path, name)) != name:
                shared.setdefault(match.path, [first]).append(name)
        for path, claims in shared.items():
            of_plain = _grouped((_plain(name), name) for name in claims)
            if len(of_plain) == 1:
                continue
            for plain, same in of_plain.items():
                other = next(names[0] for key, names in of_plain.items() if key != plain)
                for name in (name for name in same if found[name].how):
                    found[name] = Match(
                        what=f"leads to no file; the only one of its name is {path}, which '{other}' may mean as well",
                        kind="leads to no file, and the only one of its name may be that of another image as well",
                        remedy="keep the sub-folders of the labelling tool, or correct the file names",
                    )
        return found

    def find(self, name: str) -> Match:
        """The file of one name: the one at that path, else the only one whose path ends like it."""
        spellings = list(dict.fromkeys(_spellings(name)))
        for spelling in spellings:
            inside = self._inside(spelling)
            if inside == ".":
                return Match(what="is the image folder itself", remedy="name an image file in it")
            if inside is not None and os.path.lexists(os.path.join(self._roots[0], inside)):
                return Match(inside)
        wanted = PurePosixPath(spellings[-1])
        same = self._of_name(wanted.name)
        if not same and (short := _UPLOAD.sub("", wanted.name, count=1)) != wanted.name:
            wanted, same = PurePosixPath(short), self._of_name(short)
            if len(same) == 1:
                return Match(same[0], UPLOAD)
        return self._nearest(wanted, same)

    def _nearest(self, wanted: PurePosixPath, same: list[str]) -> Match:
        """The one of the files of this name whose path is the end of the wanted one, or the other way round."""
        parts = [_folded(part) for part in wanted.parts if part not in ("/", "..")]
        ranked: defaultdict[tuple[int, bool, bool], list[str]] = defaultdict(list)
        for path in same:
            own = [_folded(part) for part in PurePosixPath(path).parts]
            shorter = min(len(own), len(parts))
            if own[-shorter:] == parts[-shorter:]:
                rank = (shorter, len(own) == len(parts), PurePosixPath(path).name == wanted.name)
                ranked[rank].append(path)
        if not ranked:
            return self._nowhere(wanted, same)
        best = ranked[max(ranked)]
        if len(best) > 1:
            return Match(
                what=f"fits {len(best)} files: {_listed(best)}",
                kind="fits several files of the folder",
                remedy="give its path relative to the image folder",
            )
        depth = len(PurePosixPath(best[0]).parts)
        if depth == len(parts):
            composed = "/".join(_composed(part) for part in wanted.parts)
            return Match(best[0], "" if composed == _composed(best[0]) else CASE)
        return Match(best[0], DEEPER if depth > len(parts) else BY_END)

    def _nowhere(self, wanted: PurePosixPath, same: list[str]) -> Match:
        if same:
            where = f"a file of that name lies at {_listed(same)}"
            kind = "does not exist; a file of that name lies elsewhere in the folder"
        elif others := self._by_stem.get(_folded(wanted.stem), []):
            where = f"{_listed(others)} has that name with another extension"
            kind = "does not exist; a file has that name with another extension"
        else:
            where, kind = "", "does not exist"
        return Match(
            what=f"does not exist; {where}" if where else "does not exist",
            kind=kind,
            remedy="copy the image there or correct its file name",
        )

    def _inside(self, spelling: str) -> str | None:
        """The path relative to the folder, in normal form; None if it leads out of it."""
        if _NORMAL.fullmatch(spelling) and not _DOTS.search(spelling):
            return spelling
        place = os.path.join(self._roots[0], spelling)
        try:
            for path in (os.path.normpath(place), os.path.realpath(place)):
                for root in self._roots:
                    if Path(path).is_relative_to(root):
                        return Path(path).relative_to(root).as_posix()
                if not os.path.isabs(spelling) and ".." not in PurePosixPath(spelling).parts:
                    break
        except (OSError, ValueError):  # a link to itself, NUL
            pass
        return None

    def _of_name(self, name: str) -> list[str]:
        return self._by_name.get(_folded(name), [])

    @cached_property
    def _files(self) -> list[str]:
        """All files below the folder, hidden ones apart."""
        found, seen = [], set[str]()
        for place, folders, names in os.walk(self._roots[0], followlinks=True):
            if (real := os.path.realpath(place)) in seen:  # a link that leads back
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            below = Path(place).relative_to(self._roots[0])
            found += [(below / name).as_posix() for name in sorted(names) if not name.startswith(".")]
        return found

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return _grouped((_folded(PurePosixPath(path).name), path) for path in self._files)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _grouped((_folded(PurePosixPath(path).stem), path) for path in self._files)


def _spellings(name: str) -> Iterator[str]:
    """The name as it is written, and what it means if it comes from Windows, from an address or from a server."""
    yield name
    yield name.strip()
    slashes = name.strip().replace("\\", "/")
    yield slashes
    yield _path_of(slashes)
    yield unquote(_path_of(slashes))


def _plain(name: str) -> str:
    return _composed([*_spellings(name)][-1])


def _path_of(name: str) -> str:
    """The path in an address, in Label Studio's `/data/local-files/?d=PATH`, or behind the drive of Windows."""
    if "://" in name or (name.startswith("/data/") and "?" in name):
        try:
            address = urlsplit(name)
            name = parse_qs(address.query).get("d", [address.path])[0].replace("\\", "/")
        except ValueError:  # brackets that are no IPv6 address
            pass
    return re.sub(r"^/?[A-Za-z]:(?=/)", "", name)


def _composed(text: str) -> str:
    """macOS decomposes letters with accents in file names."""
    return unicodedata.normalize("NFC", text)


def _folded(text: str) -> str:
    return _composed(text).casefold()


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for key, path in pairs:
        groups[key].append(path)
    return dict(groups)


def _listed(paths: list[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more
