"""`tgc data`: the texts whose tokens are cached, and what is in a text."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygrad_chat.cli.flags import metavar_of
from tinygrad_chat.cli.help import Command, Group
from tinygrad_chat.cli.streams import print_json, say
from tinygrad_chat.config.record import SPECS
from tinygrad_chat.errors import UsageError
from tinygrad_chat.formatting import count, duration, scaled_number
from tinygrad_chat.option import refuse_ineffective, validate_settings

if TYPE_CHECKING:
    from tinygrad_chat.text.inventory import StoredTokens
    from tinygrad_chat.text.token_store import TokenStore

EXCERPT = 300  # tokens of a document that are decoded
WIDEST = 100  # characters of a line that shows a text

app = typer.Typer(
    cls=Group,
    add_completion=False,
    rich_markup_mode=None,
    help="List the texts that were tokenized, show what is in one, or remove their tokens.",
)


def _option(name: str) -> Any:
    """Return a flag, described like the same option of `tgc train`."""
    return typer.Option(help=SPECS[name].help, metavar=metavar_of(SPECS[name]))


@app.callback(invoke_without_command=True)
def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("list", cls=Command)
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line for each")] = False,
) -> None:
    """List the texts whose tokens are kept for the next start. The last used stands first."""
    from tinygrad_chat.cli.table import UNKNOWN, Column, open_console, print_table
    from tinygrad_chat.text.inventory import stored_tokens
    from tinygrad_chat.text.token_cache import stores_folder

    stores = stored_tokens()
    if as_json:
        for store in stores:
            fields = {name: value for name, value in vars(store).items() if name != "folder"}
            print_json({"id": store.name, **fields, "folder": str(store.folder)})
        return
    if not stores:
        print(f"no tokens are stored in {stores_folder()}", file=sys.stderr)
        return
    now = time.time()
    columns = [
        Column("data", [store.source or UNKNOWN for store in stores], left=True),
        Column("tokenizer", [_tokenizer(store) or UNKNOWN for store in stores], left=True),
        Column("tokens", [f"{store.tokens:,}" if store.source else UNKNOWN for store in stores]),
        Column("size", [f"{scaled_number(store.size)}B" for store in stores]),
        Column("last used", [f"{duration(max(0.0, now - store.last_use))} ago" for store in stores]),
        Column("id", [store.name for store in stores], left=True),
        Column("documents", [f"{store.documents:,}" if store.source else UNKNOWN for store in stores]),
    ]
    print_table(open_console(sys.stdout), columns, keep=3)
    if len(stores) > 1:
        print(f"\n{_together(stores)}")


@app.command(cls=Command)
def show(
    data: Annotated[list[str], typer.Argument(help="what --data of tgc train takes", show_default=False)],
    tokenizer: Annotated[str, _option("tokenizer")] = SPECS["tokenizer"].default,
    vocabulary: Annotated[int | None, _option("vocabulary")] = None,
    pre_tokenizer: Annotated[str | None, _option("pre_tokenizer")] = None,
    text_field: Annotated[str, _option("text_field")] = SPECS["text_field"].default,
    encoding: Annotated[str | None, _option("encoding")] = None,
    split: Annotated[str, _option("split")] = SPECS["split"].default,
    documents: Annotated[int, typer.Option("--documents", "-n", min=0, help="documents to show of each side")] = 3,
) -> None:
    """Show what a text is to a model: its documents, their tokens, and what is held out to evaluate on."""
    from tinygrad_chat.cli.display import open_amount
    from tinygrad_chat.text.corpora import settle_source
    from tinygrad_chat.text.token_store import TokenStore
    from tinygrad_chat.training.tokens import open_tokens

    for name, value in {"tokenizer": tokenizer, "text_field": text_field, "encoding": encoding, "split": split}.items():
        SPECS[name].check(value)
    learned = {"vocabulary": vocabulary, "pre_tokenizer": pre_tokenizer}
    chosen = {name: value for name, value in learned.items() if value is not None}
    if chosen:
        validate_settings(SPECS, chosen)
        tokenizer = "bpe" if tokenizer == SPECS["tokenizer"].default else tokenizer
        refuse_ineffective(SPECS, chosen, {"tokenizer": tokenizer})
    settings: dict[str, Any] = {**{name: SPECS[name].default for name in learned}, **chosen}
    settings |= {"text_field": text_field, "encoding": encoding, "split": split}
    with open_amount() as progress:
        opened = open_tokens(settle_source(data), tokenizer, **settings, progress=progress)
    for number, store in enumerate([opened] if isinstance(opened, TokenStore) else opened.stores):
        if number:
            print()
        for line in _shown(store, documents):
            print(line)


@app.command(cls=Command)
def clear(
    data: Annotated[
        list[str] | None,
        typer.Argument(help="names or ids, as in tgc data list (default: all)", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Remove the tokens of texts; they are made again when they are needed. Those in use stay."""
    from tinygrad_chat.text.inventory import remove_stores, stored_tokens

    stores = stored_tokens()
    for name in data or []:
        if not any(_is_called(store, name) for store in stores):
            raise UsageError(f"{name}: no tokens of such a text are stored; tgc data list shows those that are")
    chosen = [store for store in stores if not data or any(_is_called(store, name) for name in data)]
    what = f"the tokens of {_together(chosen)}"
    if chosen and not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"data clear: would remove {what}; add --yes to do so")
        if not typer.confirm(f"Remove {what}?"):
            return
    kept = remove_stores(chosen)
    print(f"removed the tokens of {count(len(chosen) - len(kept), 'text')}")
    for store in kept:
        say(f"{store.source or store.name}: is in use, so it stays")


def _is_called(store: StoredTokens, name: str) -> bool:
    return name == store.name or name.rstrip("/") == store.source.rstrip("/")


def _together(stores: Sequence[StoredTokens]) -> str:
    return f"{count(len(stores), 'text')}, {scaled_number(sum(store.size for store in stores))}B"


def _tokenizer(store: StoredTokens) -> str:
    return store.tokenizer and f"{store.tokenizer} {store.vocabulary:,}"


def _shown(store: TokenStore, documents: int) -> Iterator[str]:
    contents, total = store.contents, len(store.tokens)
    text_tokens = max(1, total - contents.documents)
    yield f"{store.source}: {count(contents.documents, 'document')}, {contents.bytes:,} bytes"
    yield from store.notes
    yield (
        f"{count(total, 'token')} by {store.tokenizer.kind}, vocabulary {store.tokenizer.size:,}, "
        f"{contents.bytes / text_tokens:.2f} bytes a token"
    )
    whole = "whole documents, by their hash" if store.split == "documents" else "the end"
    yield f"{count(total - store.held_out_from, 'token')} held out: {whole}"
    kept = int((store.document_starts < store.held_out_from).sum())
    sides = {"to train on": range(min(documents, kept))}
    if store.split == "documents":
        sides["held out"] = range(kept, min(kept + documents, contents.documents))
    for side, numbers in sides.items():
        for number in numbers:
            yield from _document(store, number, side)


def _document(store: TokenStore, number: int, side: str) -> Iterator[str]:
    start = int(store.document_starts[number])
    following = store.document_starts[number + 1 : number + 2].tolist()
    tokens = store.tokens[start : following[0] if following else len(store.tokens)]
    text = store.tokenizer.decode(tokens[:EXCERPT].tolist())
    yield f"\ndocument {number + 1}, {side}: {count(len(tokens), 'token')}"
    yield f"  {_cut(json.dumps(text, ensure_ascii=False))}"
    yield f"  {_cut(' '.join(map(str, tokens[:EXCERPT].tolist())))}"


def _cut(line: str) -> str:
    return line if len(line) <= WIDEST else f"{line[: WIDEST - 4]} ..."
