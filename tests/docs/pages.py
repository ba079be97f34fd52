"""The pages that people read, and what stands in them: blocks of code, commands and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    """Lines between ``` and ```, and the language that is named after the first."""

    page: Path
    language: str
    text: str

    def __str__(self) -> str:
        return f"{name(self.page)}: {next(iter(self.text.splitlines()), '')[:60]}"


def read(page: Path) -> str:
    """Return a page's text."""
    return page.read_text(encoding="utf-8")


def name(page: Path) -> str:
    """Return a page's path below the root."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """Return a page's blocks of code."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", read(page), re.MULTILINE | re.DOTALL)
    return [Block(page, language, text) for language, text in found]


def command_lines(page: Path) -> Iterator[tuple[str, bool]]:
    """Yield each command that a page tells a reader to type, and whether it is whole: a line of a block without a
    language is, `code` in the text may leave arguments out."""
    text = read(page)
    for block in blocks(page):
        text = text.replace(f"```{block.language}\n{block.text}```", "")
        if not block.language:
            yield from ((line, True) for line in block.text.splitlines() if _PROGRAM.match(line))
    yield from ((line, False) for line in re.findall(r"`([^`\n]+)`", text) if _PROGRAM.match(line) and " " in line)


_PROGRAM = re.compile(r"([A-Z_]+=\S+ )?(\.venv/bin/)?(tgc|python3?|pytest|pip|ruff|pyright|bash|git) ")
