"""`tgc serve` under load: its speed beside PyTorch's, many streams at once, and thousands of requests of every kind.

load        1, 8 and 32 clients of a model of 10M parameters: tokens per second and the time to a first token, beside
            PyTorch with a cache; and the share of a core that an idle server takes
streams     as many clients as are asked for, each with a prompt and a seed of its own: each one's text must be what the
            same request is answered alone; how the server's time is shared among them
requests    short ones over a few connections, of which some are mistaken and some clients leave before the end: how
            many threads, open files, answers and bytes of memory the server holds as they go by

The model of the last two is a tiny one, trained here, unless there is a --run.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Any

from bench import turns
from bench.record import write_result
from bench.serving.load import ASKED, PEERS, measure_load, show_load
from bench.serving.process import TINY, end, serving, tiny_run
from bench.serving.requests import measure_requests, show_requests
from bench.serving.streams import measure_streams, show_streams

NAME = "serve"
RESULT = "serving"
PARTS = ("load", "streams", "requests")
TINY_CACHE = (
    2  # MiB for what a tiny model has read: full after some hundred requests, so that what grows then is a leak
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    turns.add_arguments(parser)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--clients", type=int, nargs="+", default=list(ASKED), help="loads, in clients (1 8 32)")
    parser.add_argument(
        "--run", type=Path, help="the run whose model has the streams; by default a tiny one is trained"
    )
    parser.add_argument("--streams", type=int, default=200, help="clients at the same time (200)")
    parser.add_argument("--new-tokens", type=int, default=48, help="tokens that each stream is long, at most (48)")
    parser.add_argument("--requests", type=int, default=10_000, help="short requests one after the other (10000)")


def measure(arguments: argparse.Namespace) -> None:
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if "load" in arguments.parts:
            measured["load"] = measure_load(Path(folder), arguments.rounds, arguments.clients)
            show_load(measured["load"])
        if {"streams", "requests"} & set(arguments.parts):
            measured |= _measure_many(arguments, Path(folder))
    packages = ("starlette", "uvicorn", *(turns.peer_packages(PEERS) if "load" in measured else ()))
    path = write_result(RESULT, _command(arguments), measured, packages=packages, folder=arguments.results)
    print(f"written: {path}")
    if objections := [each for part in PARTS if part in measured for each in measured[part]["objections"]]:
        raise SystemExit("\n".join(objections))


def _measure_many(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return what became of the streams, and of the requests, in one server."""
    run = arguments.run or tiny_run(folder)
    measured: dict[str, Any] = {"model": arguments.run.name if arguments.run else f"tgc train {TINY}"}
    limits = ["--max-queue", str(arguments.streams), *([] if arguments.run else ["--cache-mib", str(TINY_CACHE)])]
    with serving(run, *limits) as (port, process):
        if "streams" in arguments.parts:
            measured["streams"] = asyncio.run(measure_streams(port, arguments.streams, arguments.new_tokens))
            show_streams(measured["streams"])
        if "requests" in arguments.parts:
            measured["requests"] = asyncio.run(measure_requests(port, process, arguments.requests))
            show_requests(measured["requests"])
        measured["server_exit_code"] = end(process)
    return measured


def _command(arguments: argparse.Namespace) -> str:
    command = f"python -m bench {NAME} --rounds {arguments.rounds} --clients {' '.join(map(str, arguments.clients))}"
    command += f" --streams {arguments.streams} --new-tokens {arguments.new_tokens} --requests {arguments.requests}"
    command += f" --parts {' '.join(arguments.parts)}" if set(arguments.parts) < set(PARTS) else ""
    return command + (f" --run {arguments.run.name}" if arguments.run else "")
