"""`tgc serve`."""

from __future__ import annotations

import contextlib
import os
import signal
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygrad_chat.cli.flags import flags_of
from tinygrad_chat.cli.interruption import SIGNALS, exit_code, on_signals, unwind
from tinygrad_chat.cli.streams import say
from tinygrad_chat.errors import BackendError
from tinygrad_chat.inference.options import InferenceOptions
from tinygrad_chat.option import specs_of
from tinygrad_chat.serving.options import KEY_VARIABLE, ServingOptions

if TYPE_CHECKING:
    from tinygrad_chat.runs.state import SavedModel
    from tinygrad_chat.serving.server import Server


@flags_of(ServingOptions, InferenceOptions, short=False, defaults={"mode": "its own"})
def serve(
    run: Annotated[
        str | None,
        typer.Argument(help="a run or checkpoint (default: the newest run that can chat)", show_default=False),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="open the page in a browser")] = False,
    **settings: Any,
) -> None:
    """Serve a model: an API like OpenAI's, for other programs, and a page to chat on."""
    # Read when NumPy is loaded: OpenBLAS's threads then spin for 2^14 instead of 2^26 cycles after a product. Prefill
    # uses them, and while they spin they occupy cores that decoding needs.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "14")
    compute = {name: settings.pop(name) for name in specs_of(InferenceOptions) if name in settings}
    InferenceOptions(**compute)  # raises for invalid values
    options = ServingOptions(**{"api_key": os.environ.get(KEY_VARIABLE) or None, **settings})
    try:
        from tinygrad_chat.serving.app import create_app
        from tinygrad_chat.serving.server import Server, listen
    except ModuleNotFoundError as error:
        library = str(error.name).partition(".")[0]
        raise BackendError(f"serve: {library} is not installed; run: pip install 'tinygrad-chat[serve]'") from error
    from tinygrad_chat.parallel import use_threads
    from tinygrad_chat.serving.model import ModelSource

    saved = _model(run)
    use_threads(compute.pop("threads", None))
    with contextlib.closing(listen(options.host, options.port)) as listening:
        source = ModelSource(saved, options, compute=compute, say=say)
        port = listening.getsockname()[1]
        address = f"http://{f'[{options.host}]' if ':' in options.host else options.host}:{port}"

        def started() -> None:
            served = source.served
            say(f"{served.name}, step {served.step:,}, at {address}; the API is at {address}/v1, Ctrl-C ends it")
            if open_page:
                webbrowser.open(address)

        server = Server(create_app(source.newest, options, say=say), listening, on_start=started)
        with _drained_on_signals(server) as received:
            server.run()
    if received:
        raise typer.Exit(exit_code(received))


def _model(run: str | None) -> SavedModel:
    """Return the named model; without a name, the newest that can chat or, failing that, the newest."""
    from tinygrad_chat.cli.chat_runs import chat_models
    from tinygrad_chat.files import user_path
    from tinygrad_chat.interchange.opening import open_model

    if run is not None:
        return open_model(user_path(run), say=say)
    return next(chat_models(None), None) or open_model(None, say=say)


@contextmanager
def _drained_on_signals(server: Server) -> Iterator[list[int]]:
    """Within this context, the first signal is noted in the list and lets the server finish its answers; a second one
    ends it at once."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: Any) -> None:
        if received:
            server.stop()
            unwind(number, frame)
        received.append(number)
        server.drain()
        with contextlib.suppress(RuntimeError):  # a reentrant write, in the middle of another line
            say("no new requests; finishing the answers in progress; interrupt again to stop immediately")

    on_signals(note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is note:
                signal.signal(number, handler)
