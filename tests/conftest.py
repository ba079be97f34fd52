"""Hypothesis profiles, threads, and fixtures that more than one test file uses."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Read when NumPy and PyTorch load. Test arrays are tiny: more threads would only wait for each other on a busy machine.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# The reference that needs PyTorch (extra `peers`) cannot even be imported without it; its tests skip.
collect_ignore = [] if find_spec("torch") else ["models/torch_gpt.py"]

_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=10, **_common)
settings.register_profile("ci", max_examples=25, derandomize=True, **_common)
settings.register_profile("deep", max_examples=500, **_common)
settings.load_profile("dev")


@pytest.fixture
def shakespeare() -> Path:
    """The tiny Shakespeare text, where the machine has it beside the checkout."""
    path = Path(__file__).parents[2] / "shared" / "data" / "tinyshakespeare.txt"
    if not path.exists():
        pytest.skip("tinyshakespeare.txt is not on this machine")
    return path
