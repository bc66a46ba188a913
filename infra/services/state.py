"""The state of a stack between commands: ports, passwords, processes. One file that only its owner may read."""

from __future__ import annotations

import json
import secrets
import uuid
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from flows.runtime.process import ProcessIdentity
from infra.services.files import write_private
from samif.config import Strict
from samif.errors import DataError, IntegrityError

PORTS = (
    "postgres", "ceph-mon", "s3", "mlflow", "ray", "ray-dashboard", "ray-client",
    "ray-head-agent", "ray-worker-1-agent", "ray-worker-2-agent",
)  # fmt: skip
"""Users of the ports: the first port plus the index in this list."""

FIRST_PORT = 20400


class Secrets(Strict):
    """Generated when a stack is first started; never shown, never on a command line."""

    postgres_administrator: str
    postgres_role: str
    mlflow_administrator: str
    mlflow_signing_key: str
    ray_token: str


def new_secrets() -> Secrets:
    """New secrets of 192 bits each."""
    return Secrets(**{name: secrets.token_hex(24) for name in Secrets.model_fields})


class State(Strict):
    """One stack.

    Attributes:
        stack: unique id, the first part of the tags of its processes.
        first_port: the others follow it (`PORTS`).
        pending: new secrets during a rotation; each service has its old or its new one.
        daemons: by name; some may have ended since.
    """

    schema_version: Literal[1] = 1
    stack: str
    first_port: int
    secrets: Secrets
    pending: Secrets | None = None
    daemons: dict[str, ProcessIdentity] = Field(default_factory=dict)

    def port(self, name: str) -> int:
        """The port that `name` of `PORTS` listens on."""
        return self.first_port + PORTS.index(name)


def new_state(first_port: int) -> State:
    """The state of a stack that was never started."""
    return State(stack=uuid.uuid4().hex, first_port=first_port, secrets=new_secrets())


def load_state(path: Path) -> State | None:
    """The state in a file, None where there is none.

    Raises:
        DataError: it cannot be read.
        IntegrityError: it is damaged, or of another release.
    """
    try:
        return State.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        raise IntegrityError(
            f"{path} is not the state of a stack of this release ({error.error_count()} errors); "
            "restore it, or end its processes by hand and remove the folder"
        ) from None


def save_state(path: Path, state: State) -> None:
    write_private(path, json.dumps(state.model_dump(mode="json"), indent=1) + "\n")
