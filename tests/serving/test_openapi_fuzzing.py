"""The server against its own description: whatever may be asked by it is answered as it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

pytest.importorskip("starlette", reason="starlette, of the extra serve, is not installed")
schemathesis = pytest.importorskip("schemathesis", reason="schemathesis, of the extra peers, is not installed")
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from tests.serving.talking import HOST
from tests.serving.threads import server_thread

WRONG_METHOD = 405


@pytest.fixture(scope="module")
def described() -> Iterator[Any]:
    with server_thread() as server:
        server.model.context = 16
        yield schemathesis.openapi.from_url(f"http://{HOST}:{server.port}/openapi.json")


@schemathesis.pytest.from_fixture("described").parametrize()
@settings(suppress_health_check=list(HealthCheck), deadline=None)
def test_what_is_described_is_what_happens(case: Any):
    answer = case.call()
    assert answer.status_code < 500
    if answer.status_code != WRONG_METHOD:
        case.validate_response(answer, checks=[content_type_conformance, response_schema_conformance])
