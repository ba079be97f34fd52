"""`tgc chat`: talk to a model; train one first if there is none."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygrad_chat.cli.chat_render import render
from tinygrad_chat.cli.flags import Raw, flags_of
from tinygrad_chat.cli.help import Command, GroupOfRuns
from tinygrad_chat.cli.prompt import read_prompt
from tinygrad_chat.cli.streams import print_json, say, stream_of_texts
from tinygrad_chat.errors import UsageError
from tinygrad_chat.inference.options import CHAT_TEMPERATURE as TEMPERATURE
from tinygrad_chat.inference.options import GenerationOptions, InferenceOptions
from tinygrad_chat.option import specs_of
from tinygrad_chat.serving.options import KEY_VARIABLE

if TYPE_CHECKING:
    from tinygrad_chat.inference.chat import Chat
    from tinygrad_chat.inference.remote import RemoteChat
    from tinygrad_chat.runs.state import SavedModel

SEEDS = 10**6  # to draw from
ALTERNATIVES = 4  # likeliest tokens that `/why` compares each token with, usually including itself

app = typer.Typer(
    cls=GroupOfRuns,
    add_completion=False,
    rich_markup_mode=None,
    help="Talk to a model. If there is none yet, tgc trains one first; nothing is downloaded.",
)

app.command("render", cls=Command)(render)


@app.callback(invoke_without_command=True)
@flags_of(
    InferenceOptions,
    GenerationOptions,
    short=False,
    defaults={
        "mode": "its own",
        "seed": "a different one each time",
        "temperature": f"{TEMPERATURE}, or an imported model's own",
    },
)
def chat(
    context: typer.Context,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="a run, a checkpoint, another program's model or smollm2; --checkpoint itself can be omitted "
            "(default: the newest run that can chat)",
            rich_help_panel="Model",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="small|standard|portable",
            help="our own model in another size, or in a shape that transformers can open",
            rich_help_panel="Model",
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            help=f"a server with OpenAI's API, such as http://localhost:8000; put its key in {KEY_VARIABLE}",
            rich_help_panel="Model",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="one of the server's models (default: the first)", rich_help_panel="Model")
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", "-p", help="ask this one question and exit; - reads standard input", rich_help_panel="Chat"
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="the system message, which the model reads first", rich_help_panel="Chat")
    ] = None,
    tools: Annotated[
        bool, typer.Option("--tools/--no-tools", help="let the model use its calculator", rich_help_panel="Chat")
    ] = True,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="train a model without asking", rich_help_panel="Run")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="with a prompt: answer as a JSON object", rich_help_panel="Run")
    ] = False,
    raw: Raw = False,
    **settings: Any,
) -> None:
    """Talk to a model. If there is none yet, tgc trains one first; nothing is downloaded."""
    if context.invoked_subcommand is not None:
        return
    stream = stream_of_texts(raw=raw)
    compute = {name: settings.pop(name) for name in specs_of(InferenceOptions) if name in settings}
    InferenceOptions(**compute)  # raises for invalid values
    settings.setdefault("seed", secrets.randbelow(SEEDS))
    options = GenerationOptions(**{"temperature": TEMPERATURE, **settings})
    if checkpoint is not None and size is not None:
        raise UsageError("--config: trains a new model, --checkpoint names an existing one; leave one of the two out")
    question = _question(prompt)
    elsewhere = {"checkpoint": checkpoint, "config": size, "yes": yes, "no-tools": not tools, **compute}
    if url is not None and any(elsewhere.values()):
        name = next(name for name, value in elsewhere.items() if value)
        raise UsageError(f"--{name.replace('_', '-')}: has no effect with --url; leave one of the two out")
    if model is not None and url is None:
        raise UsageError("--model: names one of a server's models; needs --url")
    if as_json and question is None:
        raise UsageError("--json: needs a question, as in tgc chat --json -p 'Who are you?'")

    if url is not None:
        opened, where = _elsewhere(url, model, options, system)
        about = f"{opened.model} at {where}"
    else:
        from tinygrad_chat.cli.chat_runs import place_of

        saved = _model(checkpoint, size, compute, yes=yes)
        options = GenerationOptions(**{"temperature": TEMPERATURE, **saved.sampling.settings(), **settings})
        opened, where = _open(saved, compute, options, system=system, tools=tools), str(saved.path)
        about = f"{place_of(saved)}, step {saved.step:,}"
    if question is None:
        _talk(opened, about)
    elif as_json:
        answer = "".join(step.text for step in opened.reply(question) if step.kind == "text")
        messages = opened.conversation.to_json()["messages"] if opened.conversation else []
        reason = opened.request and opened.request.finish_reason
        print_json(
            {"answer": answer, "finish_reason": reason, "messages": messages, ("url" if url else "checkpoint"): where}
        )
    else:
        from tinygrad_chat.cli.chat_display import PlainPage, page_for

        page = PlainPage(stream) if raw else page_for(stream)
        page.begin()
        for step in opened.reply(question):
            page.step(step)
        page.end()


def _question(prompt: str | None) -> str | None:
    """Return the one message to answer, from the prompt or a pipe; None for a conversation at a terminal."""
    if prompt is None and _is_terminal():
        return None
    question = read_prompt(prompt, say=say)
    if not question.strip():
        raise UsageError(
            "expected a message, received none; give one with -p 'Who are you?', through a pipe, or at a terminal"
        )
    return question


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _model(checkpoint: str | None, size: str | None, compute: Mapping[str, Any], *, yes: bool) -> SavedModel:
    """Return the model to talk to; train one first if there is none, or finish one whose training was stopped."""
    from tinygrad_chat.cli.chat_runs import DEFAULT, SIZES, chat_models, named_model, run_of, unfinished_default
    from tinygrad_chat.files import user_path
    from tinygrad_chat.formatting import quoted

    if checkpoint is not None:
        return named_model(user_path(checkpoint), say=say)
    if size is not None and size not in SIZES:
        raise UsageError(f"--config: expected {', '.join(SIZES)}, received {size!r:.40}")
    preset = SIZES[size] if size else DEFAULT
    found = list(chat_models(preset if size else None))
    if not found:
        if not _agreed(_offer(preset), yes=yes):
            raise UsageError("there is no model to talk to yet; tgc chat --yes trains one")
        return _trained(preset, None, compute)
    saved = found[0]
    unfinished = unfinished_default(saved)
    if unfinished is not None:
        where = f"{quoted(unfinished.path)} was stopped at step {saved.step:,}"
        if _agreed(f"The training of {where}. Continue it? No: talk to the model as it is. [Y/n] ", yes=yes):
            return _trained(preset, unfinished, compute)
        say(f"the training of {where}; tgc chat --yes continues it")
    elif len(found) > 1:
        newest = quoted(run_of(saved).path)
        say(f"{newest} is the newest of {len(found):,} runs that can chat; --checkpoint chooses another")
    return saved


def _offer(preset: str) -> str:
    from tinygrad_chat.cli.chat_runs import MINUTES

    takes = f"about {MINUTES[preset]} minutes on two cores, nothing to download"
    return f"There is no model to talk to yet. Train one now ({takes})? [Y/n] "


def _agreed(question: str, *, yes: bool) -> bool:
    """Return whether the user agrees: --yes does; otherwise ask at a terminal, and elsewhere decline."""
    from tinygrad_chat.cli.chat_input import TerminalInput
    from tinygrad_chat.cli.chat_session import is_yes

    if yes or not _is_terminal():
        return yes
    try:
        return is_yes(TerminalInput()(question), default=True)
    except (EOFError, KeyboardInterrupt):
        print(file=sys.stderr)
        raise typer.Exit(130) from None


def _trained(preset: str, unfinished: Any, compute: Mapping[str, Any]) -> SavedModel:
    from tinygrad_chat.cli.chat_training import train_to_chat
    from tinygrad_chat.runs.state import SavedModel

    training = {name: value for name, value in compute.items() if name != "weights"}
    return train_to_chat(preset, unfinished, training).open_newest(SavedModel.load, say=say)


def _open(
    saved: SavedModel, compute: dict[str, Any], options: GenerationOptions, *, system: str | None, tools: bool
) -> Chat:
    from tinygrad_chat.inference.chat import Chat
    from tinygrad_chat.inference.engine import Engine
    from tinygrad_chat.inference.load import load_model, quick_kernels
    from tinygrad_chat.parallel import use_threads
    from tinygrad_chat.runs.figures import calculator_of

    use_threads(compute.pop("threads", None))
    if compute.get("kernels", "auto") == "auto":
        chosen = {name: compute[name] for name in ("backend", "weights") if name in compute}
        compute["kernels"] = quick_kernels(options.max_new_tokens, **chosen)
    engine = Engine(load_model(saved, **compute), saved.tokenizer, rows=1, tool=calculator_of(saved))
    return Chat(engine, system=system, options=options, tools=tools, alternatives=ALTERNATIVES, say=say)


def _elsewhere(url: str, model: str | None, options: GenerationOptions, system: str | None) -> tuple[RemoteChat, str]:
    """Return a chat with a server, and the server's address."""
    import os

    from tinygrad_chat.inference.remote import RemoteChat, RemoteServer

    server = RemoteServer(url, os.environ.get(KEY_VARIABLE))
    return RemoteChat(server, model or server.first_model(), system=system, options=options), server.url


def _talk(opened: Chat | RemoteChat, about: str) -> None:
    """Hold a conversation with the user at the terminal."""
    from tinygrad_chat.cli.chat_display import is_styled, page_for
    from tinygrad_chat.cli.chat_input import open_terminal_input
    from tinygrad_chat.cli.chat_loop import converse
    from tinygrad_chat.cli.chat_session import Session

    page = page_for(sys.stdout)
    page.remark(f"{about}. /help lists the commands, Ctrl-D ends.")
    with open_terminal_input(styled=is_styled(sys.stdout)) as read_line:
        converse(Session(opened, page, read_line))
