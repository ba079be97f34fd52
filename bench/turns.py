"""Engines in processes of their own that take turns, so that the machine's moods meet all of them.

A worker is a module run as a process: it reads a line of JSON, answers with a line of JSON, and between two lines waits
without using the processor. Both ends are here: `Worker` asks, `serve` answers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bench.configurations import Configuration
from bench.record import RESULTS
from tinygrad_chat.errors import BackendError, TinygradChatError, UsageError

Name = TypeVar("Name")


class BenchmarkError(TinygradChatError):
    """Something that must hold before, or while, anything is timed, and does not."""


ROUNDS = 7
SETTLING = 0.05  # seconds before a turn, in which the last one's idle threads cease to spin
OURS = "tinygrad_chat"
PLAIN = "plain NumPy"
"""Ours without the compiled kernels of the extra `fast`."""
PEERS_EXTRA = "is not installed, the extra peers: pip install -e '.[peers]'"


class Worker:
    """A process `python -m MODULE ARGUMENTS`, in this environment with the variables of `environment` changed.

    It ends with the processes of its own, which compile. Without an `own_session` it is one of the caller's, with which
    whoever started that ends them all.
    """

    def __init__(
        self, module: str, *arguments: str, environment: Mapping[str, str] | None = None, own_session: bool = True
    ) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=own_session,
        )
        self._own_session = own_session

    def ask(self, request: Any, *, within: float | None = None) -> Any:
        """Send a request and wait for its answer; after `within` seconds the process is ended.

        Raises BenchmarkError where the process has ended instead of answering.
        """
        assert self._process.stdin
        assert self._process.stdout
        late = threading.Event()
        timer = threading.Timer(within or 0.0, lambda: (late.set(), self._end()))
        if within is not None:
            timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                print(json.dumps(request), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        finally:
            timer.cancel()
        if late.is_set():
            raise BenchmarkError(f"no answer within {within:g} s")
        if not answer:
            raise BenchmarkError(
                f"expected an answer of {' '.join(self._command[1:])}; its process ended, see above for why"
            )
        return json.loads(answer)

    def close(self) -> None:
        """Let the process come to its end."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()
        self._end()

    def _end(self) -> None:
        """End the process and those that it has started."""
        with contextlib.suppress(ProcessLookupError):
            if self._own_session:
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()


def serve(answer: Callable[[Any], Any]) -> None:
    """Answer each line of stdin, in a worker's process, until there are no more."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


@contextlib.contextmanager
def open_workers(commands: Mapping[str, Sequence[str]], *, own_sessions: bool = True) -> Iterator[dict[str, Worker]]:
    """Provide a worker for each name, given its module and arguments."""
    with contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name, command in commands.items():
            workers[name] = Worker(*command, own_session=own_sessions)
            stack.callback(workers[name].close)
        yield workers


@contextlib.contextmanager
def initial_weights(configuration: Configuration) -> Iterator[str]:
    """Provide a file of the weights that every engine begins with: those that our GPT draws."""
    from tinygrad_chat import GPT

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.npz"
        np.savez(path, **GPT(configuration.vocabulary, configuration.options).parameters().state())  # pyright: ignore[reportArgumentType]
        yield str(path)


def take_turns(names: Sequence[Name], rounds: int, title: str) -> Iterator[Name]:
    """Yield each name once a round; each round another of them is the first. Tells stderr which round it is."""
    for number in range(rounds):
        progress(f"{title}: round {number + 1} of {rounds}")
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            time.sleep(SETTLING)
            yield name


def progress(text: str) -> None:
    """Tell whoever waits, on stderr, what is going on."""
    print(text, file=sys.stderr, flush=True)


def tgc(*arguments: str) -> Any:
    """Return what a command prints with --json. Raises BenchmarkError where it fails."""
    done = subprocess.run([sys.executable, "-m", "tinygrad_chat", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkError(f"tgc {arguments[0]}: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout.splitlines()[-1])


def ratio(samples: Sequence[float], to: Sequence[float]) -> float:
    """Return the median over the rounds of the ratio of `samples` to others within a round."""
    return statistics.median(a / b for a, b in zip(samples, to, strict=True))


def expect_agreement(what: str, losses: Mapping[str, Sequence[float]], tolerances: Mapping[str, float]) -> None:
    """Raise BenchmarkError where an engine's losses differ from ours by more than its tolerance, a relative one."""
    for engine, theirs in losses.items():
        ours = np.array(losses[OURS])
        difference = float(np.max(np.abs(np.array(theirs) - ours) / np.abs(ours)))  # NaN where one of them is
        if not difference <= tolerances[engine]:
            raise BenchmarkError(
                f"{what}: expected losses of {engine} within {tolerances[engine]:.0e} of ours, "
                f"received a difference of {difference:.1e}; nothing was timed"
            )


def present_engines(engines: Sequence[str]) -> list[str]:
    """Return the engines whose libraries are installed. PyTorch must be; what else is missing is named on stderr."""
    if find_spec("torch") is None:
        raise BackendError(f"PyTorch, the peer, {PEERS_EXTRA}")
    if find_spec("jax") is None and any(engine.startswith("jax") for engine in engines):
        progress(f"left out: JAX {PEERS_EXTRA}")
        return [engine for engine in engines if not engine.startswith("jax")]
    return list(engines)


def peer_packages(engines: Sequence[str]) -> tuple[str, ...]:
    """Return the packages behind these engines, whose versions belong to the result."""
    return tuple(dict.fromkeys(engine.split()[0] for engine in engines if not engine.startswith((OURS, PLAIN))))


def add_arguments(
    parser: argparse.ArgumentParser, *, configurations: Sequence[str] = (), chosen: Sequence[str] = ()
) -> None:
    """Give a measurement the flags that all have; `chosen` of the `configurations` are measured by default, or all."""
    parser.add_argument("--rounds", type=_positive, default=ROUNDS, help=f"turns of each engine ({ROUNDS})")
    parser.add_argument("--results", type=folder, default=RESULTS, help="folder for JSON and chart (bench/results)")
    if configurations:
        default = list(chosen or configurations)
        parser.add_argument("--configurations", nargs="+", default=default, choices=configurations)
        parser.set_defaults(all_configurations=default)


def expect_whole_results(arguments: argparse.Namespace) -> None:
    """Raise UsageError where a part of the configurations would take the place of the results of all."""
    if arguments.results == RESULTS and set(arguments.configurations) < set(arguments.all_configurations):
        raise UsageError("--configurations: a part of them would replace bench/results; add --results FOLDER")


def command_of(name: str, arguments: argparse.Namespace) -> str:
    """Return the command that makes a result again."""
    configurations = getattr(arguments, "configurations", None)
    which = f" --configurations {' '.join(configurations)}" if configurations else ""
    return f"python -m bench {name} --rounds {arguments.rounds}{which}"


def folder(text: str) -> Path:
    """Make the folder now: what was measured for an hour is to find it."""
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"expected a folder that can be made, received {text} ({error.strerror})"
        ) from error
    return path


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, received {text!r}")
    return int(text)
