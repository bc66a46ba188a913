"""Whatever the API is sent, it answers with a status that it names, and never with an internal error."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error

from flows.console.access import HEADER
from flows.console.runs import Runs
from tests.flows.console.conftest import TOKENS, client
from tests.flows.console.test_review import ALARM, write_alarms

LEFT_OUT = ("POST /api/workspaces/{workspace}/sets/{set_id}/order",)
"""Starts a thread that outlives the request."""


def test_hostile_requests_are_answered(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runs, "start", lambda *_: None)  # a run takes minutes
    logging.getLogger("flows.console").setLevel(logging.CRITICAL)
    write_alarms(root, root.parent / "photos" / "images", ["1.png"])
    app = client([root], [root.parent / "photos" / "images"]).app
    schema = schemathesis.openapi.from_dict(app.openapi())  # type: ignore[attr-defined]
    schema.app = app
    names = []
    for found in schema.get_all_operations():
        operation = found.ok()
        names.append(operation.label)
        if operation.label in LEFT_OUT:
            continue

        @settings(max_examples=6, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def meets(case: schemathesis.Case) -> None:
            if "workspace" in case.path_parameters:
                case.path_parameters["workspace"] = 1
            if "set_id" in case.path_parameters:
                case.path_parameters["set_id"] = "images"
            if "item_id" in case.path_parameters:
                case.path_parameters["item_id"] = f"alarm.{ALARM}.0"
            headers = {"Authorization": f"Bearer {TOKENS['approver']}", HEADER: "1"}
            case.call_and_validate(checks=[not_a_server_error], headers=headers)

        meets()
    assert len(names) >= 37
