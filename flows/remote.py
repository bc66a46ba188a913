"""Results of stages shared through DVC's remote, where the workspace names one: brought before a run, sent after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from samif.errors import SamifError

if TYPE_CHECKING:
    from dvc.repo import Repo


def can_bring(repo: Repo, say: Callable[[str], None]) -> bool:
    """Whether results of others can be had: the workspace has a default remote (`dvc remote add --default`), and it
    answers. Where it does not, that is said; the run only takes longer."""
    if not repo.config["core"].get("remote"):
        return False
    try:
        repo.stage_cache.pull(None)
    except _troubles() as error:
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
        sent = repo.push(run_cache=True)
    except _troubles() as error:
        raise SamifError(
            f"the results are here, but DVC's remote does not take them ({_reason(error)}); mend the remote or its "
            "credentials in the environment, and run again"
        ) from None
    say(f"results are in DVC's remote ({sent} files sent)")


def _troubles() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError
    from dvc.exceptions import DvcException

    return DvcException, OSError, BotoCoreError, ClientError


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
