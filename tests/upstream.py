"""Upstream itself as a reference: karpathy/nanochat, from a checkout that NANOCHAT_DIR names, in float32.

Without a checkout, or without PyTorch, tests marked `needs_upstream` skip.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from bench.peers import nanochat

NANOCHAT_DIR = os.environ.get(nanochat.VARIABLE, "")

needs_upstream = pytest.mark.skipif(
    nanochat.why_absent(NANOCHAT_DIR) is not None, reason=str(nanochat.why_absent(NANOCHAT_DIR))
)


def upstream_module(name: str) -> Any:
    """Import a module such as nanochat.optim. What it would compile runs as written: that saves half a minute."""
    return nanochat.upstream_module(name, NANOCHAT_DIR)
