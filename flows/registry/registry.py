"""Registered versions of a line: what a classifier version holds, how it is named, found and fetched.

Two registered models per line, `<line>-decoder` and `<line>-classifier`; one MLflow run per version holds its files.
Versions are found by digest before they are made, so registering the same content again makes nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.registry.canary import REFUSED_TAG, CanaryRecords
from flows.registry.hand_moves import hand_move
from flows.registry.journal import Chain, Journal
from flows.registry.last_served import LastServedVersions
from flows.registry.mlflow_store import MlflowStore, Registration
from flows.registry.promotion import CHALLENGER, CHAMPION, Promotions
from flows.registry.prune import Prune
from flows.registry.retention import Retention
from flows.registry.run_entry import Entry
from flows.registry.version_entry import decoder_entry, version_entry
from flows.registry.version_files import DECODER, KEPT, REQUIRED, check, checked, is_whole
from flows.registry.version_record import VersionRow, row_of
from flows.registry.version_ref import parse_ref
from flows.runtime.cache_dir import cache_folder
from flows.runtime.cost import Cost
from flows.runtime.writable import is_writable
from samif.config import Params
from samif.errors import ConfigError, DataError, IntegrityError, ObjectMissing
from samif.io.hashing import file_sha256
from samif.versions.card import Card

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["Registration", "Registry", "Stored", "VersionDetails", "VersionRow"]


@dataclass(frozen=True)
class VersionDetails:
    """Everything about one classifier version; `files` are the artifact paths of its run."""

    name: str
    row: VersionRow
    run_id: str
    tags: dict[str, str]
    metrics: dict[str, float]
    files: tuple[str, ...]
    card: Card


@dataclass(frozen=True)
class Stored:
    """A version as the registry keeps it, fetched into `folder` unchecked: files by their names in the version, and
    `decoder.safetensors` of the decoder version that its tags name. `files` are those that are there."""

    name: str
    number: int
    folder: Path
    files: frozenset[str]
    tags: dict[str, str]
    metrics: dict[str, float]
    journal: Chain
    run_deleted: bool


class Registry:
    """The registry of a workspace.

    Args:
        tracking_uri: `http(s)://...` of an MLflow server or `sqlite:///FILE`; none means SQLite and a folder of
            artifacts in `<root>/.samif/`.
        root: the workspace.
        cache: folder of downloaded versions; none means `<root>/.samif/models`, or `models` in this user's cache where
            the workspace is read-only.

    Attributes:
        last_served: what was served, read without the registry.

    Raises:
        ConfigError: another kind of address.
        ServiceUnavailable: from every method, the registry does not answer.
    """

    def __init__(self, tracking_uri: str | None, root: Path, cache: Path | None = None) -> None:
        self._store = MlflowStore(tracking_uri, root)
        own = root.absolute() / ".samif" / "models"
        self._cache = cache or (own if is_writable(own) else cache_folder("models"))
        self.last_served = LastServedVersions(self._cache, self._store.shown)

    def register_decoder(self, line: str, folder: Path, sha256: str, who: str = "", cost: Cost | None = None) -> int:
        """Register the frozen decoder of `folder` (decoder.safetensors and the files beside it), once per digest.

        Returns:
            The version of `<line>-decoder` that has these bytes.

        Raises:
            IntegrityError: the file's SHA-256 is not `sha256`.
        """
        found = file_sha256(folder / DECODER)
        if found != sha256:
            raise IntegrityError(
                f"{folder / DECODER} has SHA-256 {found[:12]}, not {sha256[:12]} as its training said; "
                "run 'samif run' again"
            )

        entry = decoder_entry(line, folder, sha256, who, cost)
        return self._store.written(lambda: self._store.register(entry)).version

    def register_classifier(
        self,
        line: str,
        card: Card,
        files: Mapping[str, Path],
        decoder_version: int,
        previous: Card | None,
        example: Path | None = None,
        costs: Mapping[str, Cost] | None = None,
    ) -> Registration:
        """Register a classifier version, once per card digest; the newest version gets the alias `challenger`.

        A registration that was cut short is taken up where it stopped.

        Args:
            card: lineage of the version; stored as card.json with the MLflow run in its provenance.
            files: artifact path -> local file; at least classifier.safetensors, session.json, evaluation.json.
            decoder_version: version of `<line>-decoder` that the classifier was made with.
            previous: card of the classifier named by `card.after`; none for the base classifier.
            example: image of the version's input example; none means a drawn one.
            costs: of the stages that made it, `session` and `evaluate`, as far as they are known.

        Raises:
            IntegrityError: an old row is not bit-identical, or a frozen part or a file is not the card's.
        """
        card.check_follows(previous)
        evaluation, session = checked(line, card, files)

        entry = version_entry(card, files, decoder_version, evaluation, session, example, costs)

        def write_all() -> Registration:
            decoder = self._store.version(f"{line}-decoder", decoder_version)
            if decoder.tags.get("decoder_sha256") != card.decoder.sha256:
                raise IntegrityError(
                    f"{line}-decoder/{decoder_version} is not the decoder that '{card.name}' was made with; "
                    "register that decoder and give its version"
                )
            done = self._store.register(entry)
            # Also where the version was there without any alias: a crash may have come before this line.
            bare = str(done.version) not in map(str, self._store.model(entry.model).aliases.values())
            versions = self._store.versions(entry.model)
            if bare and done.version == max(versions) and REFUSED_TAG not in versions[done.version].tags:
                self._store.client.set_registered_model_alias(entry.model, CHALLENGER, str(done.version))
            return done

        return self._store.written(write_all)

    def promotions(self, line: str, params: Params, say: Callable[[str], None] = lambda _: None) -> Promotions:
        """Promotion and rollback of a line, asked for by the workspace with these parameters; see `Promotions`."""
        return Promotions(self._store, line, params, say)

    def canaries(self, line: str) -> CanaryRecords:
        """What is known of the canaries of a line."""
        return CanaryRecords(self._store, line)

    def prune(self, line: str, params: Params, retention: Retention) -> Prune:
        """Retention of a line, asked for by the workspace with these parameters; see `Prune`."""
        return Prune(self._store, line, params, retention)

    def hand_move(self, line: str) -> str | None:
        """One sentence where the alias of the live version was moved past the journal; see `hand_moves`."""
        return hand_move(self._store, line)

    def record_comparison(self, line: str, tags: dict[str, str], write: Callable[[Path], None]) -> str:
        """Keep a comparison of two versions as an MLflow run, once per `tags["comparison"]`; returns the run's id.

        Args:
            write: puts the files of the comparison into an empty folder.
        """
        name = f"{tags['before']} -> {tags['after']}"
        entry = Entry(line, "comparison", name, "comparison", tags, lambda folder, _: write(folder))
        return self._store.written(lambda: self._store.record(entry))

    def aliases(self, line: str) -> dict[str, int]:
        """Alias -> version of the line's classifier."""
        with self._store.reading():
            return {alias: int(number) for alias, number in self._store.model(f"{line}-classifier").aliases.items()}

    def versions(self, line: str) -> list[VersionRow]:
        """All classifier versions of a line, oldest first."""
        with self._store.reading():
            model = self._store.model(f"{line}-classifier")
            metrics = {run.info.run_id: run.data.metrics for run in self._store.runs(line)}
            found = self._store.versions(model.name).values()
            return [row_of(item, model, metrics.get(item.run_id) if item.run_id else {}) for item in found]

    def resolve(self, ref: str) -> tuple[str, int]:
        """Registered model and version of `NAME@alias`, `NAME/VERSION` or `NAME` (its newest version); see `parse_ref`.

        Raises:
            ConfigError: the form is another one.
            ObjectMissing: there is no such model, version or alias.
        """
        found = parse_ref(ref)
        name = found.model
        with self._store.reading():
            if found.alias:
                aliases = self._store.model(name).aliases
                if found.alias not in aliases:
                    if found.alias == CHAMPION and (moved := hand_move(self._store, found.line)) is not None:
                        raise ObjectMissing(moved)
                    known = ", ".join(sorted(aliases)) or "none"
                    raise ObjectMissing(
                        f"{name} has no alias '{found.alias}' (it has: {known}); promote a version to set one"
                    )
                return name, int(aliases[found.alias])
            if found.number is not None:
                self._store.version(name, found.number)
                return name, found.number
            versions = self._store.versions(name)
            if not versions:
                raise ObjectMissing(f"{name} has no version yet; run 'samif run' to register one")
            return name, max(versions)

    def show(self, ref: str) -> VersionDetails:
        """Details of the version that `ref` names (see `resolve`)."""
        name, number = self.resolve(ref)
        with self._store.reading(), tempfile.TemporaryDirectory() as folder:
            version = self._samif_version(name, number)
            metrics = self._store.metrics(version)
            return VersionDetails(
                name=name,
                row=row_of(version, self._store.model(name), metrics),
                run_id=str(version.run_id),
                tags=dict(version.tags),
                metrics=metrics,
                files=tuple(self._store.paths(version)),
                card=Card.load(self._store.fetch(version, "card.json", Path(folder))),
            )

    def download(self, ref: str, into: Path | None = None) -> Path:
        """Fetch a version and its decoder.

        Args:
            ref: see `resolve`.
            into: a folder that does not exist yet; none means the cache, `.samif/models/<card digest>`.

        Returns:
            The folder of classifier.safetensors, decoder.safetensors, card.json, session.json and evaluation.json.
            It appears whole or not at all, with both weight files checked against the card.

        Raises:
            ConfigError: `ref` has another form, or `into` exists.
            ObjectMissing: there is no such version.
            IntegrityError: files that are not the card's.
        """
        name, number = self.resolve(ref)
        if into is not None and into.exists():
            raise ConfigError(f"{into} exists already; name a folder that does not")
        with self._store.reading():
            version = self._samif_version(name, number)
            digest = version.tags["card_digest"]
            folder = into or self._cache / digest
            if is_whole(folder, digest):
                return folder
            line = name.removesuffix("-classifier")
            decoder = self._store.version(f"{line}-decoder", int(version.tags["decoder_version"]))
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as temporary:
                stage = Path(temporary) / "bundle"
                stage.mkdir()
                for path in (*REQUIRED, "card.json"):
                    self._store.fetch(version, path, stage)
                self._store.fetch(decoder, DECODER, stage)
                check(stage, digest)
                if folder.exists():  # damaged, or it was whole above
                    folder.rename(Path(temporary) / "damaged")
                try:
                    stage.rename(folder)
                except OSError:  # another process fetched it at the same time
                    if not is_whole(folder, digest):
                        raise
            return folder

    def stored(self, ref: str, folder: Path) -> Stored:
        """Fetch a version and its decoder as they are, to be checked by the caller; nothing is cached.

        Args:
            folder: an empty folder.
        """
        name, number = self.resolve(ref)
        line = name.removesuffix("-classifier")
        with self._store.reading():
            version = self._samif_version(name, number)
            files = self._store.fetch_all(version, KEPT, folder)
            decoders = self._store.versions(f"{line}-decoder")
            if (decoder := decoders.get(int(version.tags["decoder_version"]))) is not None:
                files |= self._store.fetch_all(decoder, [DECODER], folder)
            metrics, journal = self._store.metrics(version), Journal(self._store, line).read()
            deleted = self._store.is_deleted(version)
            return Stored(name, number, folder, frozenset(files), dict(version.tags), metrics, journal, deleted)

    def _samif_version(self, name: str, number: int) -> ModelVersion:
        version = self._store.version(name, number)
        if not {"card_digest", "decoder_version"} <= version.tags.keys():
            raise DataError(f"{name}/{number} was not registered by samif and has no card; choose another version")
        return version
