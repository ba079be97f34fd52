"""The server as a process: ended in every way, begun again, on a full disk, and while its run changes below it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.serving.processes import save_gpt, server_process
from tests.serving.talking import Answer, ask, connect, events, eventually, read_answer, read_until, request
from tinygrad_chat.runs.checkpoint import WEIGHTS, find_checkpoints
from tinygrad_chat.runs.state import TrainingState

pytest.importorskip("starlette", reason="starlette, of the extra serve, is not installed")
pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="Windows has no signals for one process"),
    pytest.mark.profile("ci"),
]

CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]
SHORT = {"messages": HI, "max_tokens": 3, "temperature": 0}
STREAM = {**SHORT, "stream": True, "max_tokens": 40}


def text_of(answer: Answer) -> str:
    return "".join(each["choices"][0]["delta"].get("content", "") for each in events(answer.body))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_streams_end_and_takes_no_new_ones(tmp_path: Path, number: int):
    with server_process(tmp_path, pace=0.01) as server, connect(server.port) as stream:
        stream.sendall(request(server.port, CHAT, STREAM))
        begun = read_until(stream, b'content":"0')
        server.process.send_signal(number)
        eventually(lambda: is_closed(server.port))
        assert text_of(read_answer(stream, begun)) == "0" * 40
        assert server.end() == 128 + number
        assert "Traceback" not in server.said


def test_a_second_signal_does_not_wait(tmp_path: Path):
    with server_process(tmp_path, pace=0.05) as server, connect(server.port) as stream:
        stream.sendall(request(server.port, CHAT, {**STREAM, "max_tokens": 3000}))
        read_until(stream, b'content":"0')
        server.process.send_signal(signal.SIGINT)
        eventually(lambda: is_closed(server.port))
        server.process.send_signal(signal.SIGINT)
        assert server.end() == 130
        assert "Traceback" not in server.said


def test_killed_and_begun_again_under_load(tmp_path: Path):
    """Clients see the connection end, never an answer that is not theirs; the port is free at once."""
    complete: list[str] = []
    ends = threading.Event()

    def keep_asking(port: int) -> None:
        while not ends.is_set():
            with contextlib.suppress(OSError, AssertionError, ValueError, IndexError):
                complete.append(text_of(ask(port, CHAT, STREAM)))

    with server_process(tmp_path, pace=0.001) as server:
        port = server.port
        clients = [threading.Thread(target=keep_asking, args=[port]) for _ in range(4)]
        for client in clients:
            client.start()
        eventually(lambda: len(complete) > 4)
        server.process.kill()
        server.end()
    before = len(complete)
    with server_process(tmp_path, port=port, pace=0.001) as again:
        assert again.port == port
        eventually(lambda: len(complete) > before + 4)
        ends.set()
        for client in clients:
            client.join()
    assert set(complete) == {"0" * 40}


def test_two_servers_cannot_have_one_port(tmp_path: Path):
    with server_process(tmp_path) as first, server_process(tmp_path, port=first.port) as second:
        assert second.end() == 2
        assert second.said.count("\n") == 1
        assert f"port {first.port}" in second.said or f":{first.port}" in second.said
        assert ask(first.port, CHAT, SHORT).status == 200


def test_its_log_on_a_full_disk_stops_nothing(tmp_path: Path):
    """A damaged checkpoint is what it would speak of."""
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("this system limits no other process")
    with server_process(tmp_path, "--follow") as server:
        assert said_by(server.port) == "000"
        size = server.log.stat().st_size
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, size))
        damaged = save_checkpoint(tmp_path, 7)
        (damaged / WEIGHTS).write_bytes(b"")
        assert said_by(server.port) == "000"
        save_checkpoint(tmp_path, 8)
        assert said_by(server.port) == "888"
        assert server.log.stat().st_size == size
        server.process.send_signal(signal.SIGTERM)
        assert server.end() == 143


@pytest.mark.parametrize("leave", [shutil.rmtree, lambda path: path.rename(path.with_name("elsewhere"))])
@pytest.mark.parametrize("flags", [[], ["--follow"]], ids=["", "follow"])
def test_its_run_may_go_while_it_serves(tmp_path: Path, leave, flags: list[str]):
    with server_process(tmp_path, *flags) as server:
        assert said_by(server.port) == "000"
        leave(tmp_path / "runs" / "run")
        assert said_by(server.port) == "000"


def test_weights_may_be_cut_short_while_it_serves(tmp_path: Path):
    """What is mapped from a file that shrinks would end the process by SIGBUS."""
    run = save_gpt(tmp_path / "runs" / "run")
    with server_process(tmp_path, pace=None) as server:
        before = said_by(server.port)
        for checkpoint in find_checkpoints(run.checkpoints):
            os.truncate(checkpoint / WEIGHTS, 0)
        assert said_by(server.port) == before
        assert ask(server.port, CHAT, {**SHORT, "messages": [{"role": "user", "content": "another"}]}).status == 200


def test_a_newer_checkpoint_is_taken_at_the_next_request(tmp_path: Path):
    with server_process(tmp_path, "--follow") as server:
        assert said_by(server.port) == "000"
        save_checkpoint(tmp_path, 7)
        assert said_by(server.port) == "777"
        damaged = save_checkpoint(tmp_path, 8)
        (damaged / WEIGHTS).write_bytes(b"")
        assert said_by(server.port) == "777"
        save_checkpoint(tmp_path, 9)
        assert said_by(server.port) == "999"


def test_without_follow_it_keeps_its_model(tmp_path: Path):
    with server_process(tmp_path) as server:
        assert said_by(server.port) == "000"
        save_checkpoint(tmp_path, 7)
        assert said_by(server.port) == "000"


def save_checkpoint(folder: Path, step: int) -> Path:
    """Write a checkpoint of a step, as training does."""
    checkpoints = folder / "runs" / "run" / "checkpoints"
    state = TrainingState.load(find_checkpoints(checkpoints)[0])
    state.progress.step = step
    return state.save(checkpoints)


def said_by(port: int) -> str:
    return ask(port, CHAT, SHORT).json["choices"][0]["message"]["content"]


def is_closed(port: int) -> bool:
    try:
        connect(port).close()
    except OSError:
        return True
    return False


def test_the_threads_of_blas_soon_rest_while_others_decode():
    witness = """
import os, sys
from importlib.abc import MetaPathFinder

class Witness(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "numpy":
            print(os.environ.get("OPENBLAS_THREAD_TIMEOUT"))

sys.meta_path.insert(0, Witness())
sys.argv = ["tgc", "serve", "nowhere"]
from tinygrad_chat.__main__ import main
main()
"""
    for given, expected in ((None, "14"), ("20", "20")):
        environment = {name: text for name, text in os.environ.items() if name != "OPENBLAS_THREAD_TIMEOUT"}
        environment |= {} if given is None else {"OPENBLAS_THREAD_TIMEOUT": given}
        done = subprocess.run([sys.executable, "-c", witness], capture_output=True, text=True, env=environment)
        assert done.stdout == f"{expected}\n", done.stderr
