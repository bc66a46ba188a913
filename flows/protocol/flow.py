"""Run the protocol in a workspace: every number of shots with every seed, resumable score by score."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from flows.artifacts.proposal_file import ProposalFile
from flows.loaders.inputs import dataset_of
from flows.protocol.features import pool_of
from flows.runtime.progress import say, track
from flows.workspace.layout import Layout
from samif.config import BASE, Params, digest
from samif.dataset.check import class_counts
from samif.dataset.model import ImageRecord
from samif.errors import ConfigError, DataError
from samif.inference.propose import Proposals
from samif.io.hashing import file_sha256
from samif.protocol.run import Line, Score, Variant, base_of, chain, instance_keys, score


@dataclass(frozen=True)
class Plan:
    """Numbers of shots, ascending, and seeds of the draws."""

    shots: tuple[int, ...]
    seeds: tuple[int, ...]


def line_of(layout: Layout, params: Params) -> Line:
    """What a workspace learns from and is scored on.

    Raises:
        ConfigError: no session teaches a class, or one has images of its own.
        ObjectMissing: the workspace was not run.
    """
    sessions = {name: session for name, session in params.sessions.items() if not session.background}
    if not sessions:
        raise ConfigError(f"{layout.params} has no session that teaches a class; add one with 'samif session add'")
    own = [name for name, session in sessions.items() if session.source is not None]
    if own:
        raise ConfigError(
            f"session '{own[0]}' has images of its own, and the protocol draws shots from the training images; "
            "remove the session, or label its classes there"
        )
    kept = ProposalFile(layout.proposals("val"))

    @cache
    def proposals_of(image_id: int) -> Proposals:
        return kept.of(val.image(image_id))

    val = dataset_of(layout, params, "val").in_memory()

    def of(image: ImageRecord) -> Proposals:
        return proposals_of(image.id)

    return Line(dataset_of(layout, params, "train").in_memory(), val, of, params.dataset.base_classes, sessions)


def possible(line: Line, shots: Sequence[int]) -> tuple[int, ...]:
    """Those numbers of shots that every class of the sessions has instances for; says which it leaves out."""
    counts = class_counts(line.train)
    classes = [name for session in line.sessions.values() for name in session.classes]
    fewest = min(classes, key=lambda name: counts.get(name, (0, 0))[0])
    most = counts.get(fewest, (0, 0))[0]
    left_out = [count for count in sorted(set(shots)) if count > most]
    if left_out:
        say(f"left out {', '.join(map(str, left_out))} shots: '{fewest}' has {most} labelled instances to draw from")
    kept = tuple(count for count in sorted(set(shots)) if 0 < count <= most)
    if not kept:
        raise DataError(f"no number of shots is left: '{fewest}' has {most} labelled instances to draw from")
    return kept


def run_protocol(layout: Layout, params: Params, plan: Plan, variant: Variant | None = None) -> list[Score]:
    """The scores of every classifier of every chain: the base once, then each session for each shots and seed.

    Scores are kept in `.samif/protocol` as they come, so an interrupted run goes on where it stopped.

    Raises:
        ConfigError: no session teaches a class.
        DataError: a class has too few labelled instances.
        ObjectMissing: the workspace was not run.
    """
    line = line_of(layout, params)
    how = variant or Variant(params.train_base, params.evaluate)
    plan = Plan(possible(line, plan.shots), plan.seeds)
    pool = pool_of(layout, params, instance_keys(line, plan.shots, plan.seeds))
    kept = _Kept(layout.state / "protocol" / f"{_key(layout, line, how)}.jsonl")
    wanted = [(shots, seed) for shots in plan.shots for seed in plan.seeds]
    names = list(line.sessions)
    missing = [(k, s) for k, s in wanted if any((k, s, name) not in kept.scores for name in names)]
    if missing or (0, 0, BASE) not in kept.scores:
        base = base_of(pool, how)
        with track(1 + len(missing) * len(names), "classifiers", "score") as progress:
            if (0, 0, BASE) not in kept.scores:
                kept.add(score(line, how, base, BASE, 0, 0, None))
            progress.advance()
            for shots, seed in missing:
                for name, classifier, seconds in chain(pool, line, how, base, shots, seed):
                    if (shots, seed, name) not in kept.scores:
                        kept.add(score(line, how, classifier, name, shots, seed, seconds))
                    progress.advance()
    found = [kept.scores[0, 0, BASE]]
    return found + [kept.scores[shots, seed, name] for shots, seed in wanted for name in names]


def _key(layout: Layout, line: Line, variant: Variant) -> str:
    """Digest of everything that decides a score, but for shots and seed."""
    files = [layout.decoder / "decoder.safetensors", layout.index("train"), layout.index("val"), layout.embeddings]
    files += [layout.proposals("train"), layout.proposals("val")]
    content = {
        "variant": variant.digest,
        "files": [file_sha256(path) for path in files],
        "base": list(line.base_classes),
        "sessions": [[name, session.classes] for name, session in line.sessions.items()],
    }
    return digest(content)[:32]


class _Kept:
    """Scores in a file, a line each; a line cut off by a crash is left out and written again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.scores: dict[tuple[int, int, str], Score] = {}
        content = path.read_text(encoding="utf-8") if path.is_file() else ""
        self._cut_off = not content.endswith("\n") and bool(content)
        for text in content.splitlines():
            try:
                self._take(Score.model_validate_json(text))
            except ValidationError:
                continue

    def add(self, found: Score) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            if self._cut_off:
                file.write("\n")
                self._cut_off = False
            file.write(json.dumps(found.model_dump(mode="json")) + "\n")
        self._take(found)

    def _take(self, found: Score) -> None:
        self.scores[found.shots, found.seed, found.session] = found
