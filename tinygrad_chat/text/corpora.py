"""Corpora: documents from files, folders, patterns or built-in names, read piece by piece.

Nothing here holds a whole file in memory: a document is an iterator of pieces of text.

>>> corpus = open_corpus("pydoc")
>>> first = next(iter(corpus.documents()))
>>> "".join(first).startswith("The \\"assert\\" statement")
True
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tinygrad_chat.errors import DataError
from tinygrad_chat.formatting import count, one_line, short_list
from tinygrad_chat.text.conversations.conversation import Conversation
from tinygrad_chat.text.conversations.document import chat_document
from tinygrad_chat.text.download import DOWNLOADS, Progress, download
from tinygrad_chat.text.embedded import CORPORA, EmbeddedCorpus
from tinygrad_chat.text.finding import TWICE, LeftOut, describe_left_out, find_files, path_of, storable
from tinygrad_chat.text.formats.compression import open_bytes
from tinygrad_chat.text.formats.data_file import DataFile, look_at
from tinygrad_chat.text.formats.encoding import UTF8, Encoding, named_encoding
from tinygrad_chat.text.formats.rows import TEXT_FIELD, Document
from tinygrad_chat.text.hub import hub_files, is_on_hub, pin_revision
from tinygrad_chat.text.shares import looks_shared, split_share, without_shares
from tinygrad_chat.text.standard_input import STANDARD_INPUT, keep_standard_input, was_standard_input

READING = 2  # bump when the same files would give different documents
CHAT_READING = 2  # bump when the same rows would give different conversations
TEXT, CHATS = "text beside conversations", "conversations beside text"

Source = str | Sequence[str]
"""What `--data` names: a built-in name, a path or a pattern, or a data set on the hub; or several of them."""


@dataclass(frozen=True)
class Corpus:
    """A named source of documents. `documents(any_bytes=False)` starts over at each call.

    With `any_bytes`, bytes that are not text become surrogate escapes instead of raising DataError. `files` are the
    documents' files; `cut` is how they are decoded and split into documents, if that depends on more than their names.
    While neither changes, the documents stay the same, and cached tokens are reused. A generated corpus has a `stamp`
    instead, which changes with its contents. A corpus with neither files nor stamp is tokenized in each run.
    `left_out` lists what was found among the files but not read; `notes` tell the user about that, and about how the
    files were read. If `conversations` is true, the documents are `ChatDocument`s.
    """

    name: str
    documents: Callable[..., Iterator[Document]]
    files: tuple[Path, ...] = ()
    cut: str = ""
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    stamp: str = ""
    conversations: bool = False

    def size(self) -> int:
        """Return the total size of its files in bytes; 0 if there are none, or one is gone."""
        try:
            return sum(file.stat().st_size for file in self.files)
        except OSError:
            return 0


def settle_source(data: Source) -> str | tuple[str, ...]:
    """Return a source that can be read again: standard input is saved, and each name can be stored as UTF-8.

    A data set on the hub is pinned to its current revision. Raises UsageError if standard input is closed,
    StorageError if there is no room to save it, DataError if the hub does not answer.
    """
    if isinstance(data, str):
        name, share = split_share(data)
        if share is None and looks_shared(data):
            return path_of(data).absolute().as_uri()  # once the file is gone, its name would mean a share
        if is_on_hub(name):
            settled = pin_revision(name)
        else:
            settled = keep_standard_input() if name == STANDARD_INPUT else storable(name)
        return settled + data.removeprefix(name)
    return tuple(str(settle_source(each)) for each in data)


def open_corpus(
    data: Source, *, text_field: str = TEXT_FIELD, encoding: str | None = None, progress: Progress | None = None
) -> Corpus:
    """Open the corpus that `data` names: a built-in name, a file, a folder, a pattern, or several of them.

    Shares are ignored here. `text_field` is the key or column that holds the text of each row. `encoding` is that of
    all text files; without it, each file's is detected. `progress` is called during a download. Raises DataError if
    there is nothing of that name, nothing that is text, or a download fails; BackendError if a library that a file
    needs is missing.
    """
    named = None if encoding is None else named_encoding(encoding)
    names = without_shares(data)
    if not all(names) or not names:
        raise DataError("--data: expected a file, a folder or a built-in name, received none")
    seen: set[Path] = set()
    parts = [_open(name, text_field, named, seen, progress) for name in names]
    if len(parts) == 1:
        return parts[0]
    if len({part.conversations for part in parts}) > 1:
        chats = next(part.name for part in parts if part.conversations)
        raise DataError(
            f"--data {chats}: holds conversations, and another source holds text; mix them with shares, as in "
            f"--data {chats}:0.8"
        )

    def documents(any_bytes: bool = False) -> Iterator[Document]:
        return itertools.chain.from_iterable(part.documents(any_bytes=any_bytes) for part in parts)

    return Corpus(
        short_list(names),
        documents,
        tuple(file for part in parts for file in part.files),
        cut=" and ".join(f"{len(part.files)} {part.cut}" for part in parts),
        left_out=tuple(each for part in parts for each in part.left_out),
        notes=tuple(note for part in parts for note in part.notes),
        stamp=" ".join(part.stamp for part in parts if part.stamp),
        conversations=parts[0].conversations,
    )


def corpus_of_texts(texts: Iterable[str], source: str = "texts") -> Corpus:
    """Return texts as a corpus, one document each. Reading it raises DataError for anything but a str."""

    def documents(any_bytes: bool = False) -> Iterator[Document]:
        for text in texts:
            if not isinstance(text, str):
                raise DataError(f"--data {source}: expected texts, each a str, received {one_line(repr(text)):.80}")
            yield [text]

    return Corpus(source, documents)


def corpus_of_conversations(conversations: Iterable[Conversation], source: str = "conversations") -> Corpus:
    """Return conversations as a corpus. Reading it raises DataError for one without an answer."""

    def documents(any_bytes: bool = False) -> Iterator[Document]:
        for number, conversation in enumerate(conversations, start=1):
            yield chat_document(conversation, f"--data {source}, conversation {number}")

    return Corpus(source, documents, conversations=True)


def _embedded(corpus: EmbeddedCorpus) -> Corpus:
    def documents(any_bytes: bool = False) -> Iterator[Document]:
        return (chat_document(each, f"--data {corpus.name}") for each in corpus.conversations())

    name = corpus.name
    return Corpus(name, documents, cut=f"embedded {name}", stamp=f"{name} {corpus.version}", conversations=True)


def _open(data: str, text_field: str, encoding: Encoding | None, seen: set[Path], progress: Progress | None) -> Corpus:
    """Return the corpus of one name, without files already `seen` under another; its own are added to `seen`."""
    if data == "pydoc":
        return Corpus(data, _pydoc, _pydoc_files(), cut="by topic")
    if data in CORPORA:
        return _embedded(CORPORA[data])
    if data in DOWNLOADS:
        path = download(data, progress)
        if DOWNLOADS[data].document_per_line:
            return Corpus(data, lambda any_bytes=False: _lines(path), (path,), cut="by line")
        whole = DataFile(path, ".txt", UTF8)
        return Corpus(data, lambda any_bytes=False: whole.documents(text_field, any_bytes), (path,))
    found, left_out = (hub_files(data), []) if is_on_hub(data) else find_files(data)
    if found is None:
        raise _nothing(data)
    paths = [found] if isinstance(found, Path) else found
    left_out += [LeftOut(path, TWICE) for path in paths if path.absolute() in seen]
    new = {path.absolute(): path for path in paths if path.absolute() not in seen}
    seen.update(new)
    files = [look_at(path, encoding) for path in new.values()]
    if not isinstance(found, Path):  # a folder or a pattern: the user did not choose each file
        files = _readable(files, text_field, left_out)
        if not files and len(new) == len(paths):
            why = f" ({describe_left_out(left_out)})" if left_out else ""
            raise DataError(f"--data {data}: contains no text files{why}; put text or JSONL files there")
    chats = [file for file in files if file.holds_conversations(text_field)]
    if chats and len(chats) < len(files):
        rest = [file for file in files if file not in chats]
        most = max(chats, rest, key=lambda some: sum(file.path.stat().st_size for file in some))
        left_out += [LeftOut(file.path, TEXT if most is chats else CHATS) for file in files if file not in most]
        files, chats = most, chats if most is chats else []

    def documents(any_bytes: bool = False) -> Iterator[Document]:
        for file in files:
            yield from file.documents(text_field, any_bytes)

    cut = f"{READING}, rows by {text_field!r}, encoding {encoding and encoding.codec}"
    if chats:
        cut = f"conversations {CHAT_READING}, encoding {encoding and encoding.codec}"
    notes = (*_notes_of(data, files, text_field), *_notes_of_left_out(data, left_out))
    paths = [file.path for file in files]
    return Corpus(data, documents, tuple(paths), cut, tuple(left_out), notes, conversations=bool(chats))


def _readable(looked: list[DataFile], text_field: str, left_out: list[LeftOut]) -> list[DataFile]:
    """Return the files that hold text; if none does, the first with rows, as reading it will say what is wrong."""
    lacks = [(file, file.lack(text_field)) for file in looked]
    files = [file for file, lack in lacks if not lack]
    if not files and (with_rows := [file for file, lack in lacks if repr(text_field) in lack]):
        return with_rows[:1]
    left_out += [LeftOut(file.path, lack) for file, lack in lacks if lack]
    return files


def _nothing(data: str) -> DataError:
    path = path_of(data)
    if was_standard_input(path):
        return DataError(f"--data {data}: data from standard input is no longer cached; pipe it in again with --data -")
    built_in = ", ".join(["pydoc", *DOWNLOADS, *CORPORA])
    return DataError(f"--data {data}: no such file or folder, and not one of the built-in names {built_in}")


def _notes_of(data: str, files: Sequence[DataFile], text_field: str) -> Iterator[str]:
    """Yield a line on how files were read, if anything about it was unusual."""
    ways: Counter[str] = Counter()
    for file in files:
        if file.encoding is not None:
            if file.encoding.codec == "cp1252":
                ways["as Windows-1252, a superset of Latin-1 (set another with --encoding)"] += 1
            elif file.encoding.codec != "utf-8":
                ways[f"as {file.encoding.name}"] += 1
            elif file.encoding.mark:
                ways["without the byte-order mark"] += 1
            if file.returns:
                ways["with CRLF or CR line endings"] += 1
        if file.rows_as_they_stand(text_field):
            ways[f"row by row, as there is no column {text_field!r} (set another with --text-field)"] += 1
    if ways:
        yield f"{data}: read " + "; ".join(f"{count(number, 'file')} {way}" for way, number in ways.items())


def _notes_of_left_out(data: str, left_out: Sequence[LeftOut]) -> Iterator[str]:
    if left_out:
        yield f"{data}: left out {describe_left_out(left_out)}"


def _pydoc(any_bytes: bool = False) -> Iterator[Document]:
    """Return Python's own reference manual, one document per topic; it ships with every CPython."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError(
            "--data pydoc: this Python comes without pydoc_data.topics; pass a text file with --data FILE"
        ) from error
    return ([topics[name]] for name in sorted(topics))


def _pydoc_files() -> tuple[Path, ...]:
    try:
        found = find_spec("pydoc_data.topics")
    except ImportError:
        return ()
    return (Path(found.origin),) if found is not None and found.has_location and found.origin else ()


def _lines(path: Path) -> Iterator[Document]:
    with open_bytes(path) as file:
        for line in file:
            yield [line.decode().rstrip("\r\n")]
