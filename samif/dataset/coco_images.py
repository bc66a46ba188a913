"""The records of `images` in a COCO file: ids, file names, sizes, and the facts of the image files."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from samif.dataset.findings import NOTHING_TO_DO, Findings, shown
from samif.dataset.image_names import ImageFolder, Match
from samif.dataset.images import MAX_PIXELS, ImageError, ImageFacts, inspect_image
from samif.dataset.values import Key, file_name_of, get, key_of, new_ids, whole

Progress = Callable[[int, int], None]

_THREADS = 8
_AHEAD = 64
"""Images that are being opened or wait for it: one job for each of millions of images would fill the memory."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image with its id and file name.

    Attributes:
        file_name: path of the file relative to the image folder; the name in the record where there is no such file.
        declared: width and height in pixels as the record gives them; None where it gives none.
        found: whether there is such a file.
        listed: the name in the record.
        place: of the image among those of the file.
    """

    id: int
    file_name: str
    declared: tuple[int, int] | None
    found: bool
    listed: str
    place: int


@dataclass
class Entries:
    """The images of a file, and by what annotations may refer to them."""

    all: list[Entry] = field(default_factory=list)
    by_key: dict[Key, Entry] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> dict[str, Entry | None]:
        """By file name, with and without folders and extension; None where two images share it."""
        return _names(self.all)

    def of(self, reference: object) -> Entry | None:
        """The image of an `image_id`, which some tools write as a file name."""
        key = key_of(reference)
        if key is None:
            return None
        found = self.by_key.get(key)
        return found if found is not None else self.by_name.get(str(reference).strip())


def read_entries(records: list[Any], root: Path, findings: Findings) -> Entries:
    """Images with an id of their own and a file name."""
    entries = Entries()
    owner: dict[str, Entry] = {}
    if not records:
        findings.add("names no image ('images' is empty)", "export at least one labelled image")
    keys = [key_of(get(record, "id")) for record in records]
    fresh = new_ids(key for key in keys if isinstance(key, int))
    names = [file_name_of(get(record, "file_name")) for record in records]
    matches = ImageFolder(root).find_all(name for name in names if name is not None)
    for position, (record, key, name) in enumerate(zip(records, keys, names, strict=True)):
        if name is None:
            findings.add(
                f"image record {position} needs a file_name, has {shown(get(record, 'file_name'))}",
                "give it the name of its file",
                kind="image records have no usable file_name",
            )
            continue
        match = matches[name]
        known = owner.get(match.path or name)
        same = entries.by_key.get(key) if key is not None else None
        if same is not None and same is not known:
            findings.add(
                f"shares its image id with {same.file_name}", "number the images apart", name, same.id,
                kind="shares its image id with another image",
            )  # fmt: skip
            continue
        declared = _declared(record)
        if known is not None:
            if declared not in (None, known.declared):
                findings.add(
                    f"is listed twice with different sizes, also as image {known.id}",
                    "keep the record whose size is that of the file",
                    known.file_name,
                    known.id,
                    kind="is listed twice with different sizes",
                )
            else:
                findings.tally("images that are listed twice, whose labels were joined", NOTHING_TO_DO, name)
            if key is not None:
                entries.by_key[key] = known
            continue
        id_ = key if isinstance(key, int) else next(fresh)
        if not isinstance(key, int):
            findings.tally("images whose id is no whole number, which were numbered", NOTHING_TO_DO, get(record, "id"))
        _tell(match, name, id_, findings)
        entry = Entry(id_, match.path or name, declared, bool(match.path), name, len(entries.all))
        owner[entry.file_name] = entry
        entries.all.append(entry)
        entries.by_key[id_ if key is None else key] = entry
    return entries


def _tell(match: Match, name: str, id_: int, findings: Findings) -> None:
    if not match.path:
        findings.add(match.what, match.remedy, name, id_, loss="image", kind=match.kind)
    elif match.how:
        findings.tally(f"file {match.how}", "look whether they are the right images", f"{match.path} for {name}")


def _names(entries: Iterable[Entry]) -> dict[str, Entry | None]:
    names: dict[str, Entry | None] = {}
    for entry in entries:
        for path in (PurePosixPath(entry.file_name), PurePosixPath(entry.listed.replace("\\", "/"))):
            for name in {entry.file_name, entry.listed, path.name, path.stem}:
                names[name] = entry if names.get(name, entry) is entry else None
    return names


def _declared(record: object) -> tuple[int, int] | None:
    width, height = whole(get(record, "width")), whole(get(record, "height"))
    if width is None or height is None or min(width, height) < 1 or width * height > MAX_PIXELS:
        return None
    return width, height


def inspect(
    entries: Iterable[Entry], root: Path, findings: Findings, progress: Progress | None
) -> dict[int, ImageFacts]:
    """Facts of every image that can be decoded, by image id."""
    facts: dict[int, ImageFacts] = {}
    there = [entry for entry in entries if entry.found]
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        submissions = (pool.submit(inspect_image, root / entry.file_name) for entry in there)
        jobs: deque[Future[ImageFacts]] = deque(islice(submissions, _AHEAD))
        for done, entry in enumerate(there, start=1):
            try:
                facts[entry.id] = jobs.popleft().result()
            except ImageError as problem:
                findings.add(problem.what, problem.remedy, entry.file_name, entry.id, loss="image")
            jobs.extend(islice(submissions, 1))
            if progress is not None:
                progress(done, len(there))
    return facts


def size_of(entry: Entry, facts: ImageFacts | None, findings: Findings) -> tuple[int, int] | None:
    """(width, height) that the record declares, else that of the upright image; findings where they differ."""
    declared = entry.declared
    if declared is None:
        if facts is not None:
            findings.tally("images without a valid width and height, which were taken from the files", NOTHING_TO_DO)
        return facts.size if facts is not None else None
    if facts is not None and declared != facts.size:
        if declared == facts.stored_size:
            findings.add(
                f"is {_by(facts.size)} once its EXIF orientation turns it upright, but is declared {_by(declared)}",
                "set dataset.labels_on in params.yaml (or --labels-on) to stored or upright, as the labelling tool "
                "showed it",
                entry.file_name,
                entry.id,
                kind="is of another size once its EXIF orientation turns it upright than declared",
            )
        else:
            findings.add(
                f"is {_by(facts.size)}, but is declared {_by(declared)}",
                "export the annotations for this very file; its labels may not fit",
                entry.file_name,
                entry.id,
                kind="is of another size than declared",
            )
    return declared


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
