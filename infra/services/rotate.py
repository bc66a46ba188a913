"""New passwords and keys for all services, without losing data; an interrupted rotation can be continued."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import psycopg
import requests

from infra.services.mlflow import ADMINISTRATOR
from infra.services.postgres import ADMINISTRATOR as POSTGRES
from infra.services.postgres import set_password
from infra.services.stack import Stack
from infra.services.state import new_secrets, save_state
from samif.errors import ServiceUnavailable


def rotate(stack: Stack, say: Callable[[str], None] = lambda _: None) -> None:
    """Give a running stack new secrets; the old ones are invalid afterwards.

    The new ones are saved before they are used. After an interruption every service has the old or the new one; the
    same command tries both and completes the rotation.

    Raises:
        ServiceUnavailable: the stack does not run, or a service accepts neither the old nor the new secret.
    """
    with stack.running():
        state = stack.state
        if state.pending is None:
            state = state.model_copy(update={"pending": new_secrets()})
            save_state(stack.state_file, state)
        old, new = state.secrets, state.pending
        assert new is not None
        _postgres(stack, (old.postgres_administrator, new.postgres_administrator))
        _mlflow(stack, (old.mlflow_administrator, new.mlflow_administrator))
        stack.ceph.rotate()
        stack.state = state.model_copy(update={"secrets": new, "pending": None})
        save_state(stack.state_file, stack.state)
        say("all passwords and keys are new; restarting MLflow and Ray with them")
        stack.stop_dependents()
    stack.up(None)
    say(f"done: read {stack.environment} again")


def _postgres(stack: Stack, secrets: tuple[str, str]) -> None:
    for password in secrets:
        try:
            url = replace(stack.postgres, administrator_password=password).url("postgres", administrator=True)
            with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
                set_password(connection, POSTGRES, secrets[1])
                return
        except psycopg.OperationalError as error:
            reason = str(error).splitlines()[0]
    raise ServiceUnavailable(f"PostgreSQL accepts neither the old nor the new password ({reason})")


def _mlflow(stack: Stack, secrets: tuple[str, str]) -> None:
    old, new = secrets
    if stack.mlflow.accepts(new):
        return
    change = {"username": ADMINISTRATOR, "password": new, "current_password": old}
    url = f"{stack.mlflow.url}/api/2.0/mlflow/users/update-password"
    answer = requests.patch(url, auth=(ADMINISTRATOR, old), json=change, timeout=30)
    if not answer.ok:
        raise ServiceUnavailable(f"MLflow accepts neither the old nor the new password ({answer.status_code})")
