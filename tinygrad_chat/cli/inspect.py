"""`tgc inspect`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygrad_chat.cli.streams import print_json, say
from tinygrad_chat.cli.table import Column, open_console, print_facts, print_table
from tinygrad_chat.formatting import as_command, count, duration, memory_size, quoted
from tinygrad_chat.option import flag_of

if TYPE_CHECKING:
    from tinygrad_chat.interchange.description import Description, Tensor


def inspect(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="PATH|NAME",
            help="a run, a checkpoint, a Hugging Face folder, a GGUF file, hub:OWNER/NAME or smollm2 (default: the "
            "newest run)",
            show_default=False,
        ),
    ] = None,
    tensors: Annotated[bool, typer.Option("--tensors", help="list its weights, too, with shapes and types")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="a JSON object instead")] = False,
) -> None:
    """Show what a model is: its shape, tokenizer and chats, what it takes to run, and which programs can open it."""
    from tinygrad_chat.files import user_path
    from tinygrad_chat.interchange.description import describe_model
    from tinygrad_chat.interchange.opening import open_model

    found = describe_model(open_model(user_path(model) if model else None, say=say))
    if as_json:
        print_json(found.to_json(tensors=tensors))
        return
    console = open_console(sys.stdout)
    print_facts(console, _facts(found))
    if tensors:
        print()
        print_table(console, _columns(found.tensors), keep=3)


def _facts(found: Description) -> Iterator[tuple[str, str]]:
    yield found.what, f"{quoted(found.path)}, {memory_size(found.bytes)}"
    if found.step:
        yield "trained", f"{count(found.step, 'step')} in {duration(found.seconds)}"
    yield "family", f"{found.family}, {found.architecture}" if found.family else "none that other programs know"
    if found.shape:
        yield "shape", _shape(found.shape)
    if found.options:
        yield "options", as_command([word for each in found.options.items() for word in _words(*each)])
    yield "parameters", f"{found.parameters:,}: {_counts(found.parts)}"
    yield "stored as", _counts(found.stored)
    yield "tokenizer", _tokenizer(found.tokenizer)
    yield "chats", f"by {found.chats} template" if found.chats else "no"
    if found.sampling:
        yield "sampling", ", ".join(f"{name} {value:g}" for name, value in found.sampling.items())
    if found.memory:
        sizes = ", ".join(f"{memory_size(size)} as {kind}" for kind, size in found.memory.items())
        yield "memory", f"{sizes} to answer, and {memory_size(found.cache or 0)} for a full context"
    yield "exports to", ", ".join(name for name, reason in found.exports.items() if reason is None) or "none"
    for name, reason in found.exports.items():
        if reason is not None:
            yield f"not {name}", reason


def _shape(shape: Mapping[str, int]) -> str:
    heads, shared = shape["heads"], shape["key_value_heads"]
    of_keys = f" ({shared} of keys and values)" if shared != heads else ""
    return (
        f"{count(shape['layers'], 'layer')}, {count(heads, 'head')} of {shape['head_width']}{of_keys}, "
        f"width {shape['width']:,}, feed-forward {shape['feed_forward_width']:,}, context {shape['context']:,}"
    )


def _words(name: str, value: Any) -> list[str]:
    """Return an option as it is typed on a command line."""
    if isinstance(value, bool):
        return [flag_of(name) if value else flag_of(f"no_{name}")]
    return [flag_of(name), f"{value:g}" if isinstance(value, float) else str(value)]


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size:,}" for name, size in counted.items())


def _tokenizer(tokenizer: Mapping[str, Any]) -> str:
    split = f", split as {tokenizer['pre_tokenizer']}" if "pre_tokenizer" in tokenizer else ""
    ends = ", ".join(tokenizer["ends"])
    return f"{tokenizer['kind']}, {tokenizer['size']:,} tokens{split}; begins with {tokenizer['bos']}, ends with {ends}"


def _columns(tensors: tuple[Tensor, ...]) -> list[Column]:
    return [
        Column("tensor", [each.name for each in tensors], left=True),
        Column("shape", [" x ".join(map(str, each.shape)) for each in tensors]),
        Column("stored as", [each.kind for each in tensors], left=True),
        Column("numbers", [f"{each.size:,}" for each in tensors]),
    ]
