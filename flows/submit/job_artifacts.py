"""What is kept of a submission where it outlives the cluster: an MLflow run beside the versions that it registered."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from flows.registry.mlflow_store import Entry, MlflowStore
from flows.submit.package import Submission
from samif.io import files


class Kept:
    """The MLflow run of a submission, in the registry of its line."""

    def __init__(self, tracking_uri: str | None, root: Path, line: str, name: str) -> None:
        self._store, self._line, self._name = MlflowStore(tracking_uri, root), line, name

    def put(self, submission: Submission, status: str, contents: dict[str, bytes]) -> None:
        """Write files (name -> content) over those of an earlier call.

        Raises:
            SamifError: the registry does not answer.
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
        """Download into a folder whatever there is.

        Args:
            log: a file of this name stays as it is where it is the longer one: it was followed beyond what was kept.

        Raises:
            SamifError: the registry does not answer.
        """
        with self._store.reading(), TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
            mine = f"tags.kind = 'submission' and tags.submission = '{self._name}'"
            run = next(self._store.runs(self._line, mine), None)
            for name in self._store.fetch_run(run, Path(temporary)) if run is not None else ():
                fetched, there = Path(temporary) / name, folder / name
                if name != log or not there.exists() or there.stat().st_size < fetched.stat().st_size:
                    fetched.rename(there)
