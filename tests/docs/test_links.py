"""Every link leads somewhere, and every path that is named exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, blocks, name, read

OUTSIDE = ("http", "../../actions")
UPSTREAM = "upstream_analysis.md"  # it names paths of another repository


def without_code(page: Path) -> str:
    text = read(page)
    for block in blocks(page):
        text = text.replace(block.text, "")
    return text


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path):
    for target in re.findall(r"\]\(([^)]+)\)", without_code(page)):
        if target.startswith(OUTSIDE):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != UPSTREAM], ids=name)
def test_every_path_of_the_repository_that_is_named_exists(page: Path):
    for path in re.findall(r"`((?:\w+/)+(?:[\w.]+\.(?:py|cu|cuh|md|json|toml|html))?)(?:::\w+)?`", without_code(page)):
        if not path.startswith(("runs/", "my_notes/", "samples/", "checkpoints/")):
            assert any((ROOT / folder / path).exists() for folder in (".", "tinygrad_chat", "docs")), path


def test_every_page_is_in_the_index():
    linked = {
        (ROOT / "docs" / target.split("#")[0]).resolve()
        for target in re.findall(r"\]\(([^)]+)\)", read(ROOT / "docs" / "README.md"))
    }
    for page in PAGES:
        if page.parent in (ROOT / "docs", ROOT) and page.name != "README.md":
            assert page in linked, name(page)


@pytest.mark.parametrize("picture", ["chat.png", "first_run.png"])
def test_a_picture_is_small_and_stands_in_the_readme(picture: str):
    assert f"](docs/pictures/{picture})" in read(ROOT / "README.md")
    assert (ROOT / "docs" / "pictures" / picture).stat().st_size < 300_000
