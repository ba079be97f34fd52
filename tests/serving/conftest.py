"""What all tests of servers share."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Any

import pytest


class Impatient:
    """asyncio, as uvicorn's server sees it, with a twentieth of the time to sleep."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        """Sleep for less than that."""
        await asyncio.sleep(seconds / 20)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn looks every tenth of a second whether it should end, and then waits as long again: a fifth of a second
    for each server that a test starts."""
    if find_spec("uvicorn"):
        monkeypatch.setattr("uvicorn.server.asyncio", Impatient())
