"""The server against its own description: whatever may be asked by it is answered as it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("starlette", reason="starlette, of the extra serve, is not installed")
from tests.serving.talking import HOST
from tests.serving.threads import server_thread

schemathesis: Any = pytest.importorskip("schemathesis", reason="schemathesis, of the extra fuzz, is not installed")
checks: Any = pytest.importorskip("schemathesis.specs.openapi.checks")


@pytest.fixture(scope="module")
def described() -> Iterator[Any]:
    with server_thread() as server:
        server.model.context = 16
        yield schemathesis.openapi.from_url(f"http://{HOST}:{server.port}/openapi.json")


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large])
@given(data=st.data())
def test_what_is_described_is_what_happens(described: Any, data: st.DataObject):
    operations = [found.ok() for found in described.get_all_operations()]
    case = data.draw(data.draw(st.sampled_from(operations)).as_strategy())
    answer = case.call()
    assert answer.status_code < 500
    case.validate_response(answer, checks=[checks.content_type_conformance, checks.response_schema_conformance])
