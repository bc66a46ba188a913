"""The service as an application of a Ray cluster that somebody else runs: what KubeRay's RayService imports."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from flows.serve.auth import VARIABLE, digest_of, find_token
from flows.serve.settings import Settings, ShadowSettings
from samif.config import Strict
from samif.errors import SamifError


class Arguments(Strict):
    """`args` of the application, as `samif serve` has them as options.

    Attributes:
        model: NAME@alias (followed), NAME/VERSION, or a folder.
        workspace, state: folders that every node of the cluster sees at the same path.
        cpus, gpus: of each replica.
    """

    model: str
    workspace: str
    state: str
    replicas: Annotated[int, Field(ge=1)] = 1
    cpus: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[float, Field(ge=0.0)] = 0.0
    batch: Annotated[int, Field(ge=1, le=64)] = 1
    interval: Annotated[float, Field(ge=0.05, le=60.0)] = 0.3
    checkpoint: str | None = None
    shadow: str | None = None


def application(arguments: dict[str, Any]) -> Any:
    """What `import_path: flows.serve.application:application` builds; the token is that of SAMIF_SERVE_TOKEN.

    Raises:
        SamifError: the arguments do not fit, or there is no token.
    """
    try:
        given = Arguments.model_validate(arguments)
    except ValidationError as error:
        first = error.errors()[0]
        raise SamifError(f"args of the application: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if VARIABLE not in os.environ:
        raise SamifError(f"{VARIABLE} is not set on the cluster's nodes; the service is not for everybody")
    token, _ = find_token(None, Path(os.devnull), "0.0.0.0", True)
    assert token is not None
    state = Path(given.state)
    state.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        ref=given.model,
        root=Path(given.workspace),
        state=state,
        token_sha256=digest_of(token),
        checkpoint=given.checkpoint,
        interval=given.interval,
        threads=given.cpus,
        batch=given.batch,
        shadow=ShadowSettings(given.shadow) if given.shadow else None,
    )
    from flows.serve.metrics import environment
    from flows.serve.replica import deployment

    return deployment(settings, given.replicas, given.cpus, given.gpus, environment(state))
