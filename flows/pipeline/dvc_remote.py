"""Results of stages shared through DVC's remote, where the workspace names one: brought before a run, sent after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from flows.runtime.retry import Transient, retry_for
from samif.errors import SamifError

if TYPE_CHECKING:
    from dvc.repo import Repo

T = TypeVar("T")


def can_bring(repo: Repo, say: Callable[[str], None]) -> bool:
    """Whether results of others can be had: the workspace has a default remote (`dvc remote add --default`), and it
    answers. Where it does not, that is said; the run only takes longer."""
    if not repo.config["core"].get("remote"):
        return False
    try:
        with_retry(repo, lambda: repo.stage_cache.pull(None))
    except troubles() as error:
        say(f"DVC's remote cannot be read ({_reason(error)}); what others have computed is computed again")
        return False
    return True


def send(repo: Repo, say: Callable[[str], None]) -> None:
    """Send what the default remote lacks, if there is one: outputs, and which inputs they belong to, so that nobody
    computes them again.

    Raises:
        SamifError: the remote does not take them. What was computed stays here, and the next run sends it.
    """
    if not repo.config["core"].get("remote"):
        return
    try:
        sent = with_retry(repo, lambda: repo.push(run_cache=True))
    except troubles() as error:
        raise SamifError(
            f"the results are here, but DVC's remote does not take them ({_reason(error)}); mend the remote or its "
            "credentials in the environment, and run again"
        ) from None
    say(f"results are in DVC's remote ({sent} files sent)")


def with_retry(repo: Repo, call: Callable[[], T]) -> T:
    """What `call` gives; again, for a minute, while the default remote is away. DVC goes on where it was.

    Raises:
        troubles(): of the last attempt, or of the first one that fails for another reason.
    """
    from dvc.exceptions import FileTransferError

    def attempt() -> T:
        try:
            try:
                return call()
            except FileTransferError:  # which does not say why
                _ask(repo)
                return call()
        except troubles() as error:
            if any(map(_may_pass, _causes(error))):
                raise _RemoteUnavailable(error) from None
            raise

    try:
        return retry_for()(attempt)
    except _RemoteUnavailable as away:
        raise away.trouble  # noqa: B904  (as it came: its cause tells a stage's failure from DVC's)


def troubles() -> tuple[type[Exception], ...]:
    """Whatever DVC raises."""
    from botocore.exceptions import BotoCoreError, ClientError
    from dvc.exceptions import DvcException

    return DvcException, OSError, BotoCoreError, ClientError


class _RemoteUnavailable(Transient):
    def __init__(self, trouble: Exception) -> None:
        super().__init__(str(trouble))
        self.trouble = trouble


def _ask(repo: Repo) -> None:
    """Raise why the remote does not answer, if it does not."""
    place = repo.cloud.get_remote_odb(None, "ask", hash_name="md5")
    place.fs.exists(place.path)


def _may_pass(error: BaseException) -> bool:
    from flows.runtime import s3

    if isinstance(error, ConnectionError | TimeoutError):
        return True
    try:
        with s3.explained():
            raise error
    except Transient:
        return True
    except BaseException:
        return False


def _causes(error: BaseException) -> list[BaseException]:
    """The error, and what it came from. A list, made at once: to raise one of them again, as `_may_pass` does, hangs
    the error that is being handled behind it."""
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found:
        found.append(following)
        following = following.__cause__ or following.__context__
    return found


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
