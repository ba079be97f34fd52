"""`tgc tokenizer`: learn one from a text, use it, look at it, compare several."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinygrad_chat.cli.flags import Raw
from tinygrad_chat.cli.help import Command, Group
from tinygrad_chat.cli.streams import say, stream_of_texts
from tinygrad_chat.config.record import SPECS
from tinygrad_chat.errors import CheckpointError, UsageError
from tinygrad_chat.formatting import printable
from tinygrad_chat.text.standard_input import STANDARD_INPUT

if TYPE_CHECKING:
    from tinygrad_chat.text.tokenizers import Tokenizer

COLOURS = ("black on bright_blue", "black on bright_green", "black on bright_magenta", "black on bright_yellow")
"""Of the pieces of a text, in turn: no two neighbours have the same."""
LEAST_SECONDS = 0.2  # of encoding, over which a speed is taken
LONGEST = 64 << 20  # bytes of standard input
MOST_COMPARED = 4 << 20  # characters of a corpus by which tokenizers are compared

app = typer.Typer(
    cls=Group,
    add_completion=False,
    rich_markup_mode=None,
    help="Train a tokenizer, encode and decode with it, show its pieces, or compare several.",
)

Which = Annotated[
    str | None,
    typer.Option("--tokenizer", "-t", help="a tokenizer.json, ranks of tiktoken, or a run (default: the newest run)"),
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
    digits: Annotated[int, typer.Option(min=1, max=3, help="digits of a number that one token may have")] = 2,
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
    if ties not in ("bytes", "letters"):
        raise UsageError(f"--ties: expected bytes or letters, received {ties!r}")

    from tinygrad_chat.cli.display import open_progress
    from tinygrad_chat.files import is_there, user_path
    from tinygrad_chat.text.corpora import open_corpus, settle_source
    from tinygrad_chat.text.learning import some_documents
    from tinygrad_chat.text.tokenizers.bpe_training import HUGGING_FACE, train_bpe
    from tinygrad_chat.text.tokenizers.files import write_tokenizer
    from tinygrad_chat.text.tokenizers.splitting import BY_DIGITS

    path = user_path(out)
    if is_there(path):
        raise UsageError(f"--out {path}: is there already; choose another name")
    source = settle_source(data if len(data) > 1 else data[0])
    with open_progress(sys.stderr) as bar:
        task = None if bar is None else bar.add_task("reading", total=None)

        def progress(activity: str, done: int, total: int) -> None:
            if bar is not None and task is not None:
                bar.update(task, description=activity, completed=done, total=total)

        corpus = open_corpus(source, text_field=text_field, encoding=encoding, progress=progress)
        made = train_bpe(
            some_documents(corpus, progress),
            vocabulary,
            pattern=BY_DIGITS[digits],
            alphabet=HUGGING_FACE if ties == "letters" else range(256),
            trainer=trainer,
            progress=progress,
        )
    write_tokenizer(made, path)
    if made.size < vocabulary:
        say(f"the text has words for {made.size:,} tokens; with more text there would be {vocabulary:,}")
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
    words = (tokens or _given(None).split()) if tokens != ["-"] else _given("-").split()
    unfit = [word for word in words if not (word.isascii() and word.isdecimal() and len(word) < 10)]
    if unfit:
        raise UsageError(f"tokenizer decode: expected numbers, received {unfit[0]!r:.80}")
    print(_open(tokenizer).decode(map(int, words)), file=stream)


@app.command(cls=Command)
def show(text: Text = None, tokenizer: Which = None) -> None:
    """Show the pieces of a text: in colours where there are any, elsewhere one a line with its number."""
    from rich.text import Text as Coloured

    from tinygrad_chat.cli.table import open_console

    opened = _open(tokenizer)
    given = _given(text)
    tokens = opened.encode(given).tolist()
    pieces = [opened.decode([token]) for token in tokens]
    console = open_console(sys.stdout)
    if console.color_system and not console.no_color:  # without colours nobody could tell the pieces apart in a line
        line = Coloured()
        for number, piece in enumerate(pieces):
            line.append(printable(piece).replace("\n", "\u21b5\n"), COLOURS[number % len(COLOURS)])
        console.print(line, soft_wrap=True)
    else:
        for token, piece in zip(tokens, pieces, strict=True):
            print(f"{token}\t{piece!r}")
    size = len(given.encode("utf-8", "surrogateescape"))
    say(f"{len(tokens):,} tokens, {size:,} bytes: {size / max(1, len(tokens)):.2f} bytes a token")


@app.command(cls=Command)
def compare(
    tokenizers: Annotated[list[str], typer.Argument(help="files, runs, characters or bytes", show_default=False)],
    data: Annotated[str, typer.Option(help="a text, as --data of tgc train takes it")] = SPECS["data"].default,
) -> None:
    """Compare tokenizers on a text: how many bytes a token stands for, and how fast they encode."""
    from tinygrad_chat.cli.table import Column, open_console, print_table
    from tinygrad_chat.text.corpora import open_corpus, settle_source
    from tinygrad_chat.text.learning import some_documents
    from tinygrad_chat.text.tokenizers import ByteTokenizer, CharacterTokenizer

    corpus = open_corpus(settle_source(data))
    texts = ["".join(document) for document in some_documents(corpus, most=MOST_COMPARED)]
    size = sum(len(text.encode("utf-8", "surrogateescape")) for text in texts)
    if not size:
        raise UsageError(f"--data {data}: is empty; expected a text to encode")
    made = {"characters": lambda: CharacterTokenizer("".join(texts)), "bytes": ByteTokenizer}
    rows = []
    for name in tokenizers:
        opened = made[name]() if name in made else _open(name)
        began, rounds, tokens = time.perf_counter(), 0, 0
        while rounds == 0 or time.perf_counter() - began < LEAST_SECONDS:
            tokens = sum(len(opened.encode(text)) for text in texts)
            rounds += 1
        speed = rounds * size / (time.perf_counter() - began) / 1e6
        rows.append((name, f"{opened.size:,}", f"{tokens:,}", f"{size / tokens:.3f}", f"{speed:.1f}"))
    names = ("tokenizer", "vocabulary", "tokens", "bytes a token", "MB/s")
    columns = [
        Column(name, cells, left=name == names[0]) for name, cells in zip(names, zip(*rows, strict=True), strict=True)
    ]
    print_table(open_console(sys.stdout), columns, keep=4)
    say(f"{size:,} bytes of {data}")


def _open(name: str | None) -> Tokenizer:
    from tinygrad_chat.files import user_path
    from tinygrad_chat.runs.tokenizer import open_tokenizer

    try:
        return open_tokenizer(None if name is None else user_path(name), say=say)
    except CheckpointError as error:
        raise UsageError(f"tokenizer: expected a tokenizer.json, ranks of tiktoken, or a run; {error}") from error


def _given(text: str | None) -> str:
    """Return the text that was given, or what standard input holds, without the line end that `echo` adds."""
    if text not in (None, STANDARD_INPUT):
        return text
    if sys.stdin is None or (text is None and sys.stdin.isatty()):
        raise UsageError("tokenizer: expected a text, or one from standard input; - reads what is typed")
    content = sys.stdin.buffer.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise UsageError(f"tokenizer: expected at most {LONGEST >> 20} MiB from standard input, received more")
    return content.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
