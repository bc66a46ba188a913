"""The request record: whoever or whatever starts a run says so in this form.

`samif run`, `samif submit`, the webhook receiver and a schedule all make one `RunRequest` with `request_of`, and
`flows.pipeline.run.run` takes nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError

from flows.workspace.data_state import data_sha256
from flows.workspace.dvc_config import check_secrets
from flows.workspace.layout import Layout
from flows.workspace.revision import commit_of
from samif.config import Params, Strict, digest, load_params
from samif.errors import ConfigError
from samif.io.hashing import file_sha256
from samif.versions.card import Sha256

Text = Annotated[str, Field(max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""One line; it is shown in terminals and listings."""


class RunRequest(Strict):
    """Who asks for a run, why, and on which state.

    Attributes:
        cause: the event that started it, such as a changed object or a registered version; none where a person asks.
        commit: of the workspace's git repository, see `flows.workspace.revision.commit_of`.
        data_sha256: see `flows.workspace.data_state.data_sha256`; none in a request that waits in a queue, since the
            data are read when its run starts.
        dvc_lock: SHA-256 of dvc.lock; none before the first run.
        params: digest of params.yaml, comments left out.
    """

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True, validate_by_alias=True)

    schema_version: Literal[2] = Field(default=2, alias="schema")
    who: Annotated[Text, Field(min_length=1)]
    why: Text = ""
    cause: Text | None = None
    commit: str | None
    data_sha256: Sha256 | None
    dvc_lock: Sha256 | None
    params: Sha256

    @property
    def digest(self) -> str:
        """SHA-256 of what is asked for: parameters, data and cause. The same work has the same digest, whoever asks and
        for whatever reason. dvc.lock and the commit are left out: a run and the commit of its result change them."""
        return digest(self.model_dump(mode="json", include={"cause", "data_sha256", "params"}))


def request_of(root: Path, who: str, why: str = "", cause: str | None = None, *, with_data: bool = True) -> RunRequest:
    """The request for a run of a workspace as it is now.

    Args:
        with_data: read the state of the data, which takes a moment where there are many files.

    Raises:
        ConfigError: `root` is no workspace, params.yaml is wrong, .dvc/config holds a credential, or a text is longer
            than one line or 1000 characters.
        DataError: a data file cannot be read.
    """
    layout = Layout(root.resolve())
    if not layout.params.exists():
        raise ConfigError(f"{layout.root} is not a workspace (no params.yaml); run 'samif init' to make one")
    check_secrets(layout)
    params = load_params(layout.params)
    try:
        return RunRequest(
            who=who,
            why=why,
            cause=cause,
            commit=commit_of(layout.root),
            data_sha256=data_sha256(layout, params) if with_data else None,
            dvc_lock=file_sha256(layout.lock) if layout.lock.exists() else None,
            params=digest(params),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"the request's '{first['loc'][0]}' does not fit ({first['msg'].lower()}); give one line of text"
        ) from None


def check_unmoved(request: RunRequest, params: Params, where: Path) -> None:
    """Raise ConfigError where params.yaml is no longer what the request was made for."""
    if digest(params) != request.params:
        raise ConfigError(f"{where} has changed since the run was asked for; ask again")
