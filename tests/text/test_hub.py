"""Data sets of the hub: the right files at one commit, which is asked for once. The hub is a module of our own here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tinygrad_chat.errors import BackendError, DataError
from tinygrad_chat.text.corpora import open_corpus, settle_source
from tinygrad_chat.text.hub import hub_files

COMMIT = "0123456789abcdef" * 2 + "01234567"
FILES = {
    ".gitattributes": "x",
    "README.md": "about",
    "a/train-0.jsonl": json.dumps({"text": "first"}),
    "a/train-1.jsonl": json.dumps({"text": "second"}),
    "a/test-0.jsonl": json.dumps({"text": "third"}),
    "b/notes.txt": "a note",
}
Asked = list[tuple[str, ...]]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], Asked]:
    """Put files into a data set owner/name; what is asked of it is listed."""

    def put(files: dict[str, str], *, sizes: int | None = None) -> Asked:
        asked: Asked = []

        def dataset_info(repository: str, *, revision: str | None, files_metadata: bool) -> SimpleNamespace:
            asked.append(("info", repository, str(revision)))
            if repository != "owner/name":
                raise OSError("404 Client Error.\n\nRepository Not Found for url: https://hub/x.\n")
            siblings = [
                SimpleNamespace(rfilename=name, size=len(text) if sizes is None else sizes)
                for name, text in reversed(files.items())
            ]
            return SimpleNamespace(sha=COMMIT, siblings=siblings if files_metadata else None)

        def download(repository: str, file: str, *, repo_type: str, revision: str) -> str:
            assert (repo_type, revision) == ("dataset", COMMIT)
            asked.append(("file", repository, file))
            path = tmp_path / "snapshots" / revision / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[file])
            return str(path)

        module = SimpleNamespace(HfApi=lambda: SimpleNamespace(dataset_info=dataset_info), hf_hub_download=download)
        monkeypatch.setitem(sys.modules, "huggingface_hub", module)
        return asked

    return put


def texts(data: str) -> list[str]:
    return ["".join(document) for document in open_corpus(data).documents()]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hub:owner/name", ["third", "first", "second"]),
        ("hub:owner/name/a/train-*", ["first", "second"]),
        ("hub:owner/name@main/a/train-1.jsonl", ["second"]),
        ("hub:owner/name/b", ["a note"]),
        (f"hub:owner/name@{COMMIT}/*.txt", ["a note"]),
    ],
)
def test_documents_are_those_of_the_files_that_are_named_in_order(name: str, expected: list[str], hub):
    hub(FILES)
    assert texts(name) == expected


def test_of_several_kinds_the_first_is_read(hub):
    hub({"a.txt": "text", "b.jsonl": json.dumps({"text": "row"})})
    assert texts("hub:owner/name") == ["row"]


def test_a_settled_name_has_its_commit_and_is_never_asked_for_again(hub):
    asked = hub(FILES)
    settled = str(settle_source("hub:owner/name/b:0.5"))
    assert settled == f"hub:owner/name@{COMMIT}/b:0.5"
    assert asked == [("info", "owner/name", "None")]
    asked.clear()
    assert settle_source(settled) == settled
    assert texts(settled.removesuffix(":0.5")) == ["a note"]
    assert asked == [("file", "owner/name", "b/notes.txt")]


def test_a_list_of_files_that_was_damaged_is_asked_for_again(hub, cache: Path):
    asked = hub(FILES)
    settled = str(settle_source("hub:owner/name/b"))
    (note,) = (cache / "hub").iterdir()
    note.write_text("[1")
    assert texts(settled) == ["a note"]
    assert [what for what, *_ in asked] == ["info", "info", "file"]


def test_without_the_library_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = "--data hub:owner/name: needs huggingface_hub, the extra hub: pip install huggingface_hub"
    with pytest.raises(BackendError, match=message):
        hub_files("hub:owner/name")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "hub:other/name",
            r"other/name: cannot be downloaded from the Hugging Face hub \(404 Client Error. Repository Not Found",
        ),
        ("hub:name", "expected hub:owner/name"),
        ("hub:", "expected hub:owner/name"),
        ("hub:owner/name/*.csv", r"expected files such as \*.parquet .* received .gitattributes, README.md, a/test-0"),
    ],
)
def test_what_the_hub_does_not_have_is_one_line(name: str, message: str, hub):
    hub(FILES)
    with pytest.raises(DataError, match=message) as caught:
        hub_files(name)
    assert "\n" not in str(caught.value)


def test_a_library_of_the_world_is_not_downloaded_by_accident(hub):
    asked = hub(FILES, sizes=10 << 30)
    with pytest.raises(DataError, match=r"has 3 files of 30\.00 GiB; choose .* hub:owner/name/a/test"):
        hub_files("hub:owner/name")
    assert len(hub_files("hub:owner/name/a/*")) == 3
    assert [what for what, *_ in asked].count("info") == 2
