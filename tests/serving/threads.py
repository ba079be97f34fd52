"""A server in a thread of the tests' own process, by default with a model that says one letter for ever."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from tests.cli.chatting import TOKENIZER
from tests.serving.paced import PacedModel
from tests.serving.talking import HOST, ask
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.serving.app import create_app
from tinygrad_chat.serving.model import Served
from tinygrad_chat.serving.options import ServingOptions
from tinygrad_chat.serving.server import Server, listen


class ServerThread:
    """A server at a free port. `said` is what its log would hold."""

    def __init__(self, served: Served | None = None, **options: Any) -> None:
        self.said: list[str] = []
        self.model = PacedModel("0")
        self.options = ServingOptions(port=0, **options)
        paced = Engine(cast(LanguageModel, self.model), TOKENIZER, rows=self.options.rows)
        found = served or Served(name="paced", engine=paced)
        self._listening = listen(HOST, 0)
        self.port: int = self._listening.getsockname()[1]
        started = threading.Event()
        app = create_app(lambda: found, self.options, say=self.said.append)
        self._server = Server(app, self._listening, on_start=started.set)
        self._thread = threading.Thread(target=self._server.run, name="server")
        self._thread.start()
        assert started.wait(30)

    @property
    def open_answers(self) -> int:
        """How many answers are being written or waited for."""
        lines = ask(self.port, "/metrics").body.decode().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("tgc_answers_open "))

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._server._server.server_state.connections)

    def keep_little_unsent(self) -> None:
        """Let the system keep no more for who does not read than it must: connections inherit this."""
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)

    def end(self) -> None:
        """End at once."""
        self.model.may_go_on.set()
        self.model.pace = 0.0
        self._server.stop()
        self._thread.join(30)
        self._listening.close()
        assert not self._thread.is_alive()


@contextmanager
def server_thread(served: Served | None = None, **options: Any) -> Iterator[ServerThread]:
    """Serve within this context; nothing may go wrong in the server itself."""
    server = ServerThread(served, **options)
    try:
        yield server
    finally:
        server.end()
    assert server.said == []
