"""Upstream itself as a reference: modules of karpathy/nanochat, from a checkout that NANOCHAT_DIR names, in float32.

docs/upstream_analysis.md names the commit. Without a checkout, or without PyTorch, tests marked `needs_upstream` skip.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

NANOCHAT_DIR = os.environ.get("NANOCHAT_DIR")

needs_upstream = pytest.mark.skipif(
    not (NANOCHAT_DIR and (Path(NANOCHAT_DIR) / "nanochat").is_dir() and find_spec("torch")),
    reason="needs PyTorch and a checkout of karpathy/nanochat, named by NANOCHAT_DIR",
)


def upstream_module(name: str) -> Any:
    """Import a module such as nanochat.optim. What it would compile runs as written: that saves half a minute."""
    import torch

    if str(NANOCHAT_DIR) not in sys.path:
        sys.path.append(str(NANOCHAT_DIR))

    for library in ("rustbpe", "tiktoken"):  # of its tokenizer, which nothing here uses
        if library not in sys.modules and find_spec(library) is None:
            sys.modules[library] = ModuleType(library)

    def as_written(function: Any = None, **_: Any) -> Any:
        return function or as_written

    in_float32 = mock.patch.dict(os.environ, NANOCHAT_DTYPE="float32")  # read at import; bfloat16 on a GPU otherwise
    with in_float32, mock.patch.object(torch, "compile", as_written), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its libraries, none of our business
        return importlib.import_module(name)
