"""`tgc tokenizer`: train one on a text, use it, inspect it, or compare several."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinygrad_chat.cli.flags import Raw, metavar_of
from tinygrad_chat.cli.help import Command, Group
from tinygrad_chat.cli.streams import say, stream_of_texts
from tinygrad_chat.config.record import SPECS
from tinygrad_chat.errors import DataError, UsageError
from tinygrad_chat.formatting import memory_size, printable
from tinygrad_chat.option import expect
from tinygrad_chat.text.standard_input import STANDARD_INPUT

if TYPE_CHECKING:
    from tinygrad_chat.text.tokenizers import Tokenizer

COLOURS = ("black on bright_blue", "black on bright_green", "black on bright_magenta", "black on bright_yellow")
"""For the pieces of a text in turn, so that neighbours differ."""
MIN_SECONDS = 0.2  # of encoding, for a measurement of its speed
LONGEST = 64 << 20  # bytes of standard input
MAX_COMPARED = 4 << 20  # bytes of a corpus to compare tokenizers on

app = typer.Typer(
    cls=Group,
    add_completion=False,
    rich_markup_mode=None,
    help="Train a tokenizer, encode and decode with it, show its pieces, or compare several.",
)

Which = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        "-t",
        help="a tokenizer.json, ranks of tiktoken, a GGUF file, a run, or bytes (default: the newest run)",
    ),
]
Text = Annotated[str | None, typer.Argument(help="the text; - or nothing reads standard input", show_default=False)]


@app.callback(invoke_without_command=True)
def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command(cls=Command)
def train(
    data: Annotated[list[str], typer.Argument(help="what --data of tgc train takes", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="file to write; ranks if it ends in .tiktoken")] = Path(
        "tokenizer.json"
    ),
    vocabulary: Annotated[int, typer.Option(help="tokens, with bytes and special ones")] = SPECS["vocabulary"].default,
    pre_tokenizer: Annotated[
        str, typer.Option(metavar=metavar_of(SPECS["pre_tokenizer"]), help=SPECS["pre_tokenizer"].help)
    ] = SPECS["pre_tokenizer"].default,
    ties: Annotated[
        str,
        typer.Option(
            metavar="bytes|letters", help="which of equally frequent pairs is first: as in rustbpe, or in tokenizers"
        ),
    ] = "bytes",
    trainer: Annotated[str, typer.Option(metavar="python|rustbpe", help="what learns: rustbpe is faster")] = "python",
    text_field: Annotated[str, typer.Option(help=SPECS["text_field"].help)] = SPECS["text_field"].default,
    encoding: Annotated[str | None, typer.Option(help=SPECS["encoding"].help)] = None,
) -> None:
    """Learn a BPE tokenizer from texts, and write it as a file that other programs read, too."""
    SPECS["vocabulary"].check(vocabulary)
    SPECS["pre_tokenizer"].check(pre_tokenizer)
    expect("--ties", ties, choices=("bytes", "letters"))
    expect("--trainer", trainer, choices=("python", "rustbpe"))
    if trainer == "rustbpe" and ties == "letters":
        raise UsageError("--ties letters: has no effect with --trainer rustbpe, which breaks ties by bytes")

    from tinygrad_chat.cli.display import open_amount
    from tinygrad_chat.files import user_path
    from tinygrad_chat.text.corpora import open_corpus, settle_source
    from tinygrad_chat.text.learning import MAX_LEARNED, some_documents
    from tinygrad_chat.text.tokenizers.bpe_training import HUGGING_FACE, train_bpe
    from tinygrad_chat.text.tokenizers.files import write_tokenizer

    path = user_path(out)
    _expect_new(path)
    source = settle_source(data)
    with open_amount() as progress:
        corpus = open_corpus(source, text_field=text_field, encoding=encoding, progress=progress)
        if not any(map(any, corpus.documents(any_bytes=True))):
            raise DataError(f"--data {corpus.name}: is empty; expected text to train on")
        for note in corpus.notes:
            say(note)
        documents, most = corpus.documents(any_bytes=True), MAX_LEARNED if trainer == "python" else sys.maxsize
        if corpus.size() > most:
            say(f"the first {memory_size(most)} are used; --trainer rustbpe uses all")
        made = train_bpe(
            some_documents(documents, most, total=corpus.size(), progress=progress),
            vocabulary,
            pattern=pre_tokenizer,
            alphabet=HUGGING_FACE if ties == "letters" else range(256),
            trainer=trainer,
            progress=progress,
        )
    write_tokenizer(made, path)
    if made.size < vocabulary:
        say(f"the text is only enough for {made.size:,} tokens; more text would give {vocabulary:,}")
    print(f"{path}: {made.size:,} tokens")


@app.command(cls=Command)
def encode(text: Text = None, tokenizer: Which = None) -> None:
    """Write the tokens of a text as numbers."""
    print(*_open(tokenizer).encode(_given(text)).tolist())


@app.command(cls=Command)
def decode(
    tokens: Annotated[list[str] | None, typer.Argument(help="numbers; nothing reads standard input")] = None,
    tokenizer: Which = None,
    raw: Raw = False,
) -> None:
    """Write the text of tokens that are given as numbers."""
    stream = stream_of_texts(raw=raw)
    words = _given(" ".join(tokens) if tokens else None).split()
    unfit = [word for word in words if not (word.isascii() and word.isdecimal() and len(word) < 10)]
    if unfit:
        raise UsageError(f"tokenizer decode: expected token ids, received {unfit[0]!r:.80}")
    print(_open(tokenizer).decode(map(int, words)), file=stream)


@app.command(cls=Command)
def show(
    text: Text = None,
    tokenizer: Which = None,
    chat_template: Annotated[
        bool, typer.Option("--chat-template", help="its template of chats instead, in Jinja, as other programs read it")
    ] = False,
) -> None:
    """Show the pieces of a text: in colours where there are any, elsewhere one a line with its number."""
    if chat_template:
        if text is not None:
            raise UsageError("--chat-template: has no effect with a text; leave one of the two out")
        _show_chat_template(_open(tokenizer))
        return
    from rich.text import Text as Coloured

    from tinygrad_chat.cli.table import open_console

    opened = _open(tokenizer)
    given = _given(text)
    tokens = opened.encode(given).tolist()
    pieces = [opened.decode_bytes([token]) for token in tokens]
    console = open_console(sys.stdout)
    if console.color_system and not console.no_color:  # without colours, pieces in one line are indistinguishable
        line = Coloured()
        for number, piece in enumerate(pieces):
            shown = printable(piece.decode("utf-8", "backslashreplace")).replace("\n", "\u21b5\n")
            line.append(shown, COLOURS[number % len(COLOURS)])
        console.print(line, soft_wrap=True)
    else:
        for token, piece in zip(tokens, pieces, strict=True):
            print(f"{token}\t{_text_or_bytes(piece)!r}")
    size = len(given.encode("utf-8", "surrogateescape"))
    say(f"{len(tokens):,} tokens, {size:,} bytes: {size / max(1, len(tokens)):.2f} bytes a token")


@app.command(cls=Command)
def compare(
    tokenizers: Annotated[
        list[str],
        typer.Argument(help="files or runs; characters, bytes or bpe, made for the text", show_default=False),
    ],
    data: Annotated[list[str] | None, typer.Option(help="a text, as --data of tgc train takes it (pydoc)")] = None,
) -> None:
    """Compare tokenizers on a text: how many bytes a token stands for, and how fast they encode."""
    from tinygrad_chat.cli.display import open_amount
    from tinygrad_chat.cli.table import Column, open_console, print_table
    from tinygrad_chat.text.corpora import open_corpus, settle_source
    from tinygrad_chat.text.learning import learn_tokenizer, some_documents
    from tinygrad_chat.text.tokenizers import CharacterTokenizer

    opened = {name: _open(name) for name in tokenizers if name not in ("bpe", "characters")}
    with open_amount() as progress:
        corpus = open_corpus(settle_source(data or SPECS["data"].default), progress=progress)
        if "bpe" in tokenizers:
            opened["bpe"] = learn_tokenizer([corpus], progress=progress)
    for note in corpus.notes:
        say(note)
    texts = ["".join(document) for document in some_documents(corpus.documents(any_bytes=True), MAX_COMPARED)]
    size = sum(len(text.encode("utf-8", "surrogateescape")) for text in texts)
    if not size:
        raise DataError(f"--data {corpus.name}: is empty; expected a text to encode")
    if "characters" in tokenizers:
        opened["characters"] = CharacterTokenizer("".join(texts))
    rows = []
    for name in tokenizers:
        began, rounds, tokens = time.perf_counter(), 0, 0
        while rounds == 0 or time.perf_counter() - began < MIN_SECONDS:
            tokens = sum(len(opened[name].encode(text)) for text in texts)
            rounds += 1
        speed = rounds * size / (time.perf_counter() - began) / 1e6
        rows.append((name, f"{opened[name].size:,}", f"{tokens:,}", f"{size / tokens:.3f}", f"{speed:.1f}"))
    names = ("tokenizer", "vocabulary", "tokens", "bytes a token", "MB/s")
    columns = [
        Column(name, cells, left=name == names[0]) for name, cells in zip(names, zip(*rows, strict=True), strict=True)
    ]
    print_table(open_console(sys.stdout), columns, keep=4)
    say(f"{size:,} bytes of {corpus.name}")


def _show_chat_template(tokenizer: Tokenizer) -> None:
    from tinygrad_chat.text.conversations import ChatTemplate
    from tinygrad_chat.text.conversations.jinja import chat_template

    print(chat_template(ChatTemplate(tokenizer).turns))


def _expect_new(path: Path) -> None:
    """Before any slow work, raise UsageError if a file exists, or StorageError if it cannot be written."""
    from tinygrad_chat.files import explained, is_there

    if is_there(path):
        raise UsageError(f"{path}: already exists; name another file with --out, or remove it")
    with explained(path):
        tempfile.TemporaryFile(dir=path.parent).close()


def _text_or_bytes(piece: bytes) -> str | bytes:
    """Return a token's bytes, as text if they are whole characters."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return piece


def _open(name: str | None) -> Tokenizer:
    from tinygrad_chat.files import is_folder, user_path
    from tinygrad_chat.interchange.opening import open_foreign
    from tinygrad_chat.runs.tokenizer import tokenizer_named
    from tinygrad_chat.text.tokenizers import ByteTokenizer

    path = None if name in (None, ByteTokenizer.kind) else user_path(name)
    foreign = None if path is None or is_folder(path, follow=True) else open_foreign(path, say=say)
    return foreign.tokenizer if foreign else tokenizer_named(name, say=say)


def _given(text: str | None) -> str:
    """Return the given text, or standard input without the newline that `echo` adds."""
    if text not in (None, STANDARD_INPUT):
        return text
    if sys.stdin is None or (text is None and sys.stdin.isatty()):
        raise UsageError("tokenizer: expected a text, as an argument or from standard input; - reads what you type")
    content = sys.stdin.buffer.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise UsageError(f"tokenizer: expected at most {LONGEST >> 20} MiB from standard input, received more")
    return content.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
