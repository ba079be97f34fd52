"""Every block of Python that the pages show runs, or is part of a file that does."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_chat
from tests.docs.pages import PAGES, ROOT, Block, blocks, name
from tinygrad_chat import Tensor, ops
from tinygrad_chat.autograd import differentiable
from tinygrad_chat.backend import array_module
from tinygrad_chat.text.conversations import Conversation

PYTHON = [block for page in PAGES for block in blocks(page) if block.language == "python"]
SOURCES = "\n".join(
    path.read_text(encoding="utf-8")
    for folder in ("tinygrad_chat", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.parent != Path(__file__).parent
)
LINES = {re.sub(r"\s+# .*", "", line).strip() for line in SOURCES.splitlines()}
ELSEWHERE = re.compile(r"^(import torch|from nanochat)|\"cupy\"|\"SmolLM2-", re.MULTILINE)
"""What needs upstream's own checkout, a GPU, or another program's model: such blocks are only parsed."""
KNOWN = {"np": np, "ops": ops, "Tensor": Tensor, "differentiable": differentiable, "array_module": array_module}
KNOWN |= {"Any": Any}
"""What a page's text has introduced before its blocks."""
FEW: dict[str, Any] = {"steps": 2, "batch_size": 2}
SMALL: dict[str, Any] = {"layers": 1, "heads": 2, "width": 8, "context": 8}
ROOM: dict[str, Any] = {"context": 64, "vocabulary": 300}  # for a question and its answer


def is_quoted(block: Block) -> bool:
    """Whether each line of a block is a line of the source, but for remarks, types and lines left out."""
    lines = [re.sub(r"\s+# .*", "", line).strip() for line in block.text.splitlines()]
    return all(line in LINES or line in ("", "...") or line.startswith(("#", "def ")) for line in lines)


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_that_is_shown_runs_or_is_quoted(block: Block, tmp_path, monkeypatch, text, capsys):
    ast.parse(block.text)
    if ELSEWHERE.search(block.text) or is_quoted(block):
        return

    train = tinygrad_chat.train

    def train_briefly(data: Any = None, **settings: Any) -> Any:
        if isinstance(data, list) and isinstance(data[0], Conversation):
            return train(data, **settings | FEW | SMALL | ROOM)
        return train(text, **settings | FEW | ({} if "model" in settings else SMALL))

    monkeypatch.setattr(tinygrad_chat, "train", train_briefly)
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, name(block.page), "exec"), {"__name__": "block", **KNOWN})


def test_cuda_that_is_shown_is_quoted():
    kernels = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tinygrad_chat/kernels/cuda").glob("*.cu*")
    )
    lines = {line.strip() for line in kernels.splitlines()}
    shown = [block for page in PAGES for block in blocks(page) if block.language == "cuda"]
    assert shown
    assert [line for block in shown for line in block.text.splitlines() if line not in lines] == []


def test_most_blocks_run():
    run = [block for block in PYTHON if not (ELSEWHERE.search(block.text) or is_quoted(block))]
    assert len(run) > 15


def test_a_line_that_is_in_no_source_would_be_found():
    assert is_quoted(Block(ROOT, "python", "out = e / e.sum(axis=axis, keepdims=True)  # as it is\n"))
    assert not is_quoted(Block(ROOT, "python", "out = e / e.mean(axis=axis, keepdims=True)\n"))


def test_the_readmes_value_has_the_gradients_of_calculus(capsys: pytest.CaptureFixture[str]):
    block = next(b for b in PYTHON if b.page.name == "README.md" and "import Value" in b.text)
    exec(block.text, {})
    a, b = map(float, capsys.readouterr().out.split())
    slope = 1 - math.tanh(0.5) ** 2
    assert (a, b) == pytest.approx((-3 * slope, 2 * slope))


def test_the_readmes_op_is_the_op_that_runs():
    block = next(b for b in PYTHON if b.page.name == "README.md" and "@differentiable" in b.text)
    assert is_quoted(block)
