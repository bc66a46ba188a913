"""Results of stages shared through DVC's remote, if the workspace names one: pulled before a run, pushed after it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from flows.runtime.retry import Transient, retry_for
from samif.errors import ServiceUnavailable

if TYPE_CHECKING:
    from dvc.repo import Repo

logger = logging.getLogger(__name__)
T = TypeVar("T")


def pull_run_cache(repo: Repo, say: Callable[[str], None]) -> bool:
    """Whether results of others can be pulled: the workspace has a default remote (`dvc remote add --default`), and it
    answers. If it does not, `say` is called; the run only takes longer."""
    if not repo.config["core"].get("remote"):
        return False
    try:
        with_retry(repo, lambda: repo.stage_cache.pull(None))
    except dvc_errors() as error:
        logger.info("the DVC remote cannot be read", exc_info=True)
        say(f"DVC's remote cannot be read ({one_line(error)}); what others have computed is computed again")
        return False
    return True


def push_results(repo: Repo, say: Callable[[str], None]) -> None:
    """Push what the default remote lacks, if there is one: outputs, and which inputs they belong to, so that no other
    workspace computes them again.

    Raises:
        ServiceUnavailable: the remote does not take them. What was computed stays here, and the next run pushes it.
    """
    if not repo.config["core"].get("remote"):
        return
    try:
        sent = with_retry(repo, lambda: repo.push(run_cache=True))
    except dvc_errors() as error:
        raise ServiceUnavailable(
            f"the results are here, but DVC's remote does not take them ({one_line(error)}); repair the remote or its "
            "credentials in the environment, and run again"
        ) from None
    say(f"results are in DVC's remote ({sent} files sent)")


def with_retry(repo: Repo, call: Callable[[], T]) -> T:
    """What `call` returns; repeated for a minute while the default remote does not answer. DVC resumes where it was.

    Raises:
        dvc_errors(): of the last attempt, or of the first one that fails for another reason.
    """
    from dvc.exceptions import FileTransferError

    def attempt() -> T:
        try:
            try:
                return call()
            except FileTransferError:  # which does not say why
                _check_reachable(repo)
                return call()
        except dvc_errors() as error:
            if any(map(_is_transient, _chain(error))):
                raise _RemoteUnavailable(error) from None
            raise

    try:
        return retry_for()(attempt)
    except _RemoteUnavailable as failure:
        raise failure.error  # noqa: B904  (as it came: its cause tells a stage's failure from DVC's)


def dvc_errors() -> tuple[type[Exception], ...]:
    """Whatever DVC raises."""
    from botocore.exceptions import BotoCoreError, ClientError
    from dvc.exceptions import DvcException

    return DvcException, OSError, BotoCoreError, ClientError


def one_line(error: BaseException) -> str:
    """The text of an error on one line, without a full stop at its end."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


class _RemoteUnavailable(Transient):
    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _check_reachable(repo: Repo) -> None:
    """Raise the reason why the remote does not answer, if it does not."""
    place = repo.cloud.get_remote_odb(None, "check", hash_name="md5")
    place.fs.exists(place.path)


def _is_transient(error: BaseException) -> bool:
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


def _chain(error: BaseException) -> list[BaseException]:
    """The error and its causes. A list, made at once: raising one of them again, as `_is_transient` does, appends the
    error that is being handled to it."""
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found:
        found.append(following)
        following = following.__cause__ or following.__context__
    return found
