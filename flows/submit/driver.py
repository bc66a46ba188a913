"""The job on the cluster: a clone of the workspace's small files, one run in it, and its results published.

Ray starts `python -m flows.submit.driver` in the folder that was sent. Credentials are those of the head's environment.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from flows.pipeline.dvc_remote import dvc_errors, one_line, push_results, with_retry
from flows.pipeline.reproduce import dvc_environment
from flows.pipeline.run import last_run, run
from flows.runtime.system_errors import system_error
from flows.runtime.tuning import tune_process
from flows.runtime.user import prepare_user
from flows.submit.job_artifacts import JobArtifacts
from flows.submit.lock_file import RECORD, REQUEST
from flows.submit.package import SUBMISSION, WORKSPACE, Submission
from flows.submit.submit import LOG
from flows.workspace.dvc_config import default_remote
from flows.workspace.layout import Layout
from samif.config import load_params
from samif.errors import ConfigError, IntegrityError, ObjectMissing, SamifError, ServiceUnavailable
from samif.io.hashing import file_sha256

logger = logging.getLogger(__name__)

PUBLISH_SECONDS = 30.0
_CLONE, _LOCK = "samif-job-", "lock"
_STALE_SECONDS = 60.0  # a younger clone may not hold its lock yet


def main(sent: Path) -> int:
    """Carry out the submission in the folder `sent`; the exit code."""
    tune_process()
    prepare_user()
    try:
        submission = Submission.load(sent / SUBMISSION)
        with _clone(sent / WORKSPACE, submission) as root, _publishing(root, submission):
            _run(root, submission)
    except SamifError as error:
        _print(f"samif: {error}")
        return 1
    except Exception as error:
        if (known := system_error(error)) is None:
            raise
        logger.info("refused by the system", exc_info=True)
        _print(f"samif: {known}")
        return 1
    return 0


@contextlib.contextmanager
def _clone(small_files: Path, submission: Submission) -> Iterator[Path]:
    """A workspace for this job only: on Ray, jobs with the same files share the folder of these files."""
    for shared in submission.shared:
        if not Path(shared).is_dir():
            raise ConfigError(f"{shared} was named with --shared, but this cluster does not have it; mount it there")
    _remove_stale_clones()
    folder = Path(tempfile.mkdtemp(prefix=_CLONE))
    root = folder / submission.line
    try:
        with FileLock(folder / _LOCK):
            shutil.copytree(small_files, root)
            if submission.here is not None:
                _link_workspace(root, Path(submission.here), submission.links)
            elif submission.seen_at is not None:
                _link(root, Path(submission.seen_at), submission.links)
            yield root
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_stale_clones() -> None:
    """Remove clones of jobs that were killed: no process holds their locks."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_CLONE}*/{_LOCK}"):
        with contextlib.suppress(Timeout, OSError):
            if time.time() - lock.stat().st_mtime > _STALE_SECONDS:
                with FileLock(lock, timeout=0):
                    shutil.rmtree(lock.parent, ignore_errors=True)


def _link_workspace(root: Path, here: Path, links: tuple[str, ...]) -> None:
    """Use the state of the workspace on this machine, and the images that it names relative to itself."""
    params = root / "params.yaml"
    if not (here / params.name).exists() or file_sha256(here / params.name) != file_sha256(params):
        raise ConfigError(
            f"{here} is not the workspace that was submitted: the cluster is another machine behind a tunnel, or "
            "params.yaml has changed since; see 'samif submit --help' for what a cluster elsewhere needs"
        )
    (here / ".samif").mkdir(exist_ok=True)
    (root / ".samif").symlink_to(here / ".samif")
    _link(root, here, links)


def _link(root: Path, here: Path, links: tuple[str, ...]) -> None:
    for link in links:
        if not (here / link).exists():  # the embedding store before the first run
            (here / link).mkdir(parents=True)
        (root / link).parent.mkdir(parents=True, exist_ok=True)
        (root / link).symlink_to(here / link)


@contextlib.contextmanager
def _publishing(root: Path, submission: Submission) -> Iterator[None]:
    """Publish log, record, dvc.lock and reports beside the registered versions: every 30 s, and at the end."""
    params = load_params(root / "params.yaml")
    began = datetime.now(UTC)

    def publish(status: str) -> None:
        try:
            artifacts = JobArtifacts(params.registry.tracking_uri, root, submission.line, submission.id)
            artifacts.publish(submission, status, _contents(root, submission, began))
        except (ServiceUnavailable, ObjectMissing, IntegrityError) as error:  # the run itself continues
            _print(f"log and record are not in the registry: {error}")
            logger.info("publishing failed", exc_info=True)

    over = threading.Event()

    def publish_repeatedly() -> None:
        while not over.wait(PUBLISH_SECONDS):
            publish("running")

    publish("running")  # the first time takes longest, and a job that is stopped has three seconds for the last
    thread = threading.Thread(target=publish_repeatedly, daemon=True)
    thread.start()
    status = "failed"
    try:
        yield
        status = "done"
    except SamifError as error:
        _print(f"samif: {error}")  # first, so that the published log ends with it
        raise SystemExit(1) from None
    finally:
        over.set()
        thread.join()
        publish(status)


def _contents(root: Path, submission: Submission, began: datetime) -> dict[str, bytes]:
    layout = Layout(root)
    found = {
        REQUEST: submission.request.model_dump_json(indent=1).encode(),
        LOG: _own_log(),
        RECORD: _own_record(root, submission, began),
        "dvc.lock": _bytes(layout.lock),
        "summary.json": _bytes(layout.reports / "summary.json"),
        "index.html": _bytes(layout.reports / "index.html"),
    }
    return {name: content for name, content in found.items() if content}


def _own_log() -> bytes:
    """What this process and its stages have printed: Ray sends that to a file."""
    return _bytes(Path(os.path.realpath("/proc/self/fd/1")))


def _own_record(root: Path, submission: Submission, began: datetime) -> bytes:
    """The record of this job's run; a workspace on this machine also has those of earlier runs of the same request."""
    record = last_run(root)
    if record is None or record["request"] != submission.request.digest:
        return b""
    if datetime.fromisoformat(record["started"]) < began:
        return b""
    return json.dumps(record, indent=1, ensure_ascii=False).encode()


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _run(root: Path, submission: Submission) -> None:
    _put_samif_on_path(root.parent)
    _pull_images(root)
    try:
        record = run(root, submission.request, _print)
    except Exception:
        _push_finished(root)
        raise
    _print(f"registered: {record['versions']}")


def _put_samif_on_path(folder: Path) -> None:
    """Stages are started as `samif`; a cluster's image may have the dependencies only."""
    script = folder / "bin" / "samif"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nfrom flows.cli import main\n\nmain()\n", encoding="utf-8")
    script.chmod(0o755)
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), str(script.parent)])


def _pull_images(root: Path) -> None:
    """Bring what .dvc files name; results of earlier runs are brought by the run itself."""
    tracked = [path.relative_to(root).as_posix() for path in root.rglob("*.dvc") if path.is_file()]
    if not tracked or default_remote(Layout(root)) is None:
        return
    from dvc.repo import Repo

    with dvc_environment(root), contextlib.closing(Repo(str(root))) as repo:
        try:
            with_retry(repo, lambda: repo.pull(targets=tracked))
        except dvc_errors() as error:
            raise ObjectMissing(
                f"the images of {', '.join(tracked)} are not in the DVC remote, or the cluster may not read it "
                f"({one_line(error)}); run 'dvc push', and set the remote's variables on the cluster"
            ) from None


def _push_finished(root: Path) -> None:
    """A failed run pushes nothing itself, and its workspace is about to be removed."""
    from dvc.repo import Repo

    with dvc_environment(root), contextlib.closing(Repo(str(root))) as repo:
        try:
            push_results(repo, _print)
        except ServiceUnavailable as error:
            _print(str(error))


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    # publish the last state of a stopped job, too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("samif: stopped"))
    raise SystemExit(main(Path.cwd()))
