"""What a job leaves outlives the cluster: it is published to an MLflow run beside the versions that were registered."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from flows.registry.mlflow_store import MlflowStore
from flows.registry.run_entry import Entry
from flows.submit.package import Submission
from samif.io import files


class JobArtifacts:
    """The MLflow run of a submission, in the registry of its line.

    Args:
        name: id of the submission.
    """

    def __init__(self, tracking_uri: str | None, root: Path, line: str, name: str) -> None:
        self._store, self._line, self._name = MlflowStore(tracking_uri, root), line, name

    def publish(self, submission: Submission, status: str, contents: dict[str, bytes]) -> None:
        """Write files (name -> content) over those of an earlier call.

        Raises:
            ServiceUnavailable: the registry does not answer.
        """
        request = submission.request
        tags = {
            "submission": self._name,
            "attempt": str(submission.attempt),
            "request": request.digest,
            "who": request.who,
            "why": request.why or "-",
            "outcome": status,
        }

        def write(folder: Path, _run: str) -> None:
            for name, content in contents.items():
                files.commit(folder / name, content)

        entry = Entry(self._line, "submission", self._name, "submission", tags, write)
        self._store.written(lambda: self._store.replace(entry))

    def fetch(self, folder: Path, log: str) -> None:
        """Download into a folder whatever has been published.

        Args:
            log: a file of this name is kept if it is longer than the published one: streaming got further.

        Raises:
            ObjectMissing: there is no registry yet.
            ServiceUnavailable: the registry does not answer.
        """
        with self._store.reading(), TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
            mine = f"tags.kind = 'submission' and tags.submission = '{self._name}'"
            run = next(self._store.runs(self._line, mine), None)
            for name in self._store.fetch_run(run, Path(temporary)) if run is not None else ():
                fetched, there = Path(temporary) / name, folder / name
                if name != log or not there.exists() or there.stat().st_size < fetched.stat().st_size:
                    fetched.rename(there)
