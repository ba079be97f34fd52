"""Marks for the profiles in which what takes long is run: see CONTRIBUTING.md."""

from __future__ import annotations

import pytest

CI = pytest.mark.profile("ci")
DEEP = pytest.mark.profile("deep")
