"""`tgc serve` under load: many streams at once, and thousands of requests of every kind, in one server process.

streams     as many clients as are asked for, each with a prompt and a seed of its own: each one's text must be what the
            same request is answered alone; how the server's time is shared among them
requests    short ones over a few connections, of which some are mistaken and some clients leave before the end: how
            many threads, open files, answers and bytes of memory the server holds as they go by

Without --run the model is a tiny one, trained here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from bench.record import write_result
from bench.serving_client import HOST, Answer, Client

NAME = "serving"
TINY = "--tokenizer bpe --vocabulary 300 --layers 2 --heads 2 --width 32 --context 128 --batch-size 8 --steps 20"
MOST_GROWTH = 0.05  # of resident memory, after the first tenth of the requests
CONNECTIONS = 8
SENTENCE = "the server answers every stream with its own words and mixes none of them up"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, help="the run whose model is served; by default a tiny one is trained")
    parser.add_argument("--streams", type=int, default=200, help="clients at the same time")
    parser.add_argument("--new-tokens", type=int, default=48, help="tokens that each stream is long, at most")
    parser.add_argument("--requests", type=int, default=10_000, help="short requests one after the other")


def measure(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run or _tiny_run(Path(folder))
        with serving(run, "--max-queue", str(arguments.streams)) as (port, process):
            streams = asyncio.run(_measure_streams(port, arguments.streams, arguments.new_tokens))
            _show_streams(streams)
            requests = asyncio.run(_measure_requests(port, process, arguments.requests))
            _show_requests(requests)
            streams["server_exit_code"] = _end(process)
    command = f"python -m bench {NAME} --streams {arguments.streams} --new-tokens {arguments.new_tokens}"
    command += f" --requests {arguments.requests}" + (f" --run {arguments.run.name}" if arguments.run else "")
    model = arguments.run.name if arguments.run else f"tgc train {TINY}"
    measured = {"model": model, "streams": streams, "requests": requests}
    print(f"written: {write_result(NAME, command, measured, packages=('starlette', 'uvicorn'))}")
    if objections := [*streams["objections"], *requests["objections"]]:
        raise SystemExit("\n".join(objections))


def _tiny_run(folder: Path) -> Path:
    """Train a model that can chat, not that it says much, and return its run."""
    chats = folder / "chats.jsonl"
    lines = ({"messages": [_said("user", f"{each}?"), _said("assistant", f"It is {each}.")]} for each in range(200))
    chats.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    command = [sys.executable, "-m", "tinygrad_chat", "train", *TINY.split(), "--data", str(chats), "--quiet"]
    subprocess.run([*command, "--out", str(folder / "run")], check=True, capture_output=True)
    return folder / "run"


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@contextlib.contextmanager
def serving(run: Path, *flags: str) -> Iterator[tuple[int, psutil.Popen]]:
    """Serve a run's model at a free port, in a process; yield the two. It is ended at the latest here."""
    command = [sys.executable, "-m", "tinygrad_chat", "serve", str(run), "--port", "0", *flags]
    with psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            said = []
            for line in process.stdout:
                said.append(line)
                if found := re.search(rf"http://{re.escape(HOST)}:(\d+)", line):
                    break
            else:
                raise SystemExit(f"{' '.join(command)}: {''.join(said)}")
            yield int(found[1]), process
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def _end(process: psutil.Popen) -> int:
    """Ask the server to end, and return its exit code."""
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout=60)


# --- streams


async def _measure_streams(port: int, count: int, new_tokens: int) -> dict[str, Any]:
    """Ask every stream alone, then all at once, and compare."""
    asked = [_stream_request(number, new_tokens) for number in range(count)]
    client = Client(port)
    alone = [await client.ask("/v1/chat/completions", body) for body in asked]
    await client.close()
    clients = [Client(port) for _ in asked]
    began = time.perf_counter()
    together = await asyncio.gather(
        *(each.ask("/v1/chat/completions", body) for each, body in zip(clients, asked, strict=True)),
        return_exceptions=True,
    )
    seconds = time.perf_counter() - began
    for each in clients:
        await each.close()
    whole = [each for each in together if isinstance(each, Answer) and each.status == 200 and each.finish_reason]
    expected = {answer.text: number for number, answer in enumerate(alone)}
    differing = [
        number
        for number, (one, other) in enumerate(zip(alone, together, strict=True))
        if isinstance(other, Answer) and other.status == 200 and other.text != one.text
    ]
    mixed = [number for number in differing if getattr(together[number], "text", "") in expected]
    tokens = sum(each.usage["completion_tokens"] for each in whole)
    objections = [f"stream {number}: {each!r}" for number, each in enumerate(together) if each not in whole]
    objections += [f"stream {number}: its text is not what it is alone" for number in differing]
    return {
        "count": count,
        "lost": count - len(whole),
        "differing": len(differing),
        "mixed_up": len(mixed),
        "distinct_texts": len(expected),
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "tokens_per_second_alone": sum(each.usage["completion_tokens"] for each in alone)
        / sum(each.finished for each in alone),
        "seconds_to_first_token": _spread([each.first for each in whole]),
        "seconds_to_end": _spread([each.finished for each in whole]),
        "fairness": _jain(
            [each.usage["completion_tokens"] / (each.finished - each.first) for each in whole if each.text]
        ),
        "objections": objections,
    }


def _stream_request(number: int, new_tokens: int) -> dict[str, Any]:
    chance = random.Random(number)
    words = " ".join(chance.choices(SENTENCE.split(), k=6))
    return {
        "model": "tgc",
        "messages": [_said("user", f"{number} {words}")],
        "max_tokens": new_tokens,
        "temperature": 1.5,
        "seed": number,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    """Return the smallest, the median, the 99th percentile and the largest."""
    ordered = sorted(seconds) or [math.nan]
    last = ordered[min(len(ordered) - 1, math.ceil(0.99 * len(ordered)) - 1)]
    return {
        "smallest": ordered[0],
        "median": statistics.median(ordered),
        "99th_percentile": last,
        "largest": ordered[-1],
    }


def _jain(rates: Sequence[float]) -> float:
    """Return Jain's index of fairness: 1 where all get the same, 1 / n where one gets everything."""
    return sum(rates) ** 2 / (len(rates) * sum(rate * rate for rate in rates)) if rates else math.nan


def _show_streams(found: dict[str, Any]) -> None:
    print(
        f"streams     {found['count']} at once: {found['lost']} lost, {found['differing']} differ from what they are "
        f"alone; {found['tokens_per_second']:,.0f} tokens/s in all, {found['tokens_per_second_alone']:,.0f} one by one",
        flush=True,
    )
    for name in ("seconds_to_first_token", "seconds_to_end"):
        figures = ", ".join(f"{key.replace('_', ' ')} {value:.2f}" for key, value in found[name].items())
        print(f"            {name.replace('_', ' ')}: {figures}", flush=True)
    print(f"            fairness (Jain's index of tokens/s): {found['fairness']:.3f}", flush=True)


# --- requests


async def _measure_requests(port: int, process: psutil.Popen, count: int) -> dict[str, Any]:
    """Ask so many short requests; after each part of them, look at what the server holds while nobody asks."""
    curve: list[dict[str, int]] = []
    statuses: dict[str, int] = {}
    objections: list[str] = []
    began = time.perf_counter()
    parts = 20
    for part in range(parts):
        numbers = iter(range(count * part // parts, count * (part + 1) // parts))
        await asyncio.gather(*(_ask_short_ones(port, numbers, statuses, objections) for _ in range(CONNECTIONS)))
        curve.append({"requests": count * (part + 1) // parts, **await _held(port, process)})
    seconds = time.perf_counter() - began
    settled, last = curve[max(parts // 10 - 1, 0)], curve[-1]
    growth = max(point["resident_bytes"] for point in curve) / settled["resident_bytes"] - 1
    for what in ("threads", "open_files", "connections", "open_answers"):
        if last[what] > settled[what]:
            objections.append(f"{what}: {settled[what]} after {settled['requests']} requests, {last[what]} at the end")
    if growth >= MOST_GROWTH:
        objections.append(f"memory grew by {growth:.1%}")
    return {
        "count": count,
        "connections": CONNECTIONS,
        "seconds": seconds,
        "per_second": count / seconds,
        "answers": statuses,
        "memory_growth": round(growth, 5),
        "curve": curve,
        "objections": objections[:20],
    }


async def _ask_short_ones(port: int, numbers: Iterator[int], statuses: dict[str, int], objections: list[str]) -> None:
    """Ask one short request after another over one connection."""
    client = Client(port)
    for number in numbers:
        path, body, leave_after, expected = _short_request(number)
        try:
            answer = await client.ask(path, body, leave_after=leave_after)
        except (OSError, EOFError) as error:
            objections.append(f"request {number} {path}: {error!r}")
            await client.close()
            continue
        what = "left" if leave_after else str(answer.status)
        statuses[what] = statuses.get(what, 0) + 1
        if answer.status != expected:
            objections.append(f"request {number} {path}: expected {expected}, received {answer.status} {answer.body}")
    await client.close()


def _short_request(number: int) -> tuple[str, Any, int | None, int]:
    """Return a path, a body, after how many events the client leaves, and the status that is right."""
    short = {"model": "tgc", "max_tokens": 2, "seed": number}
    chat = {**short, "messages": [_said("user", f"{number}")]}
    kinds: list[tuple[str, Any, int | None, int]] = [
        ("/v1/chat/completions", chat, None, 200),
        ("/v1/chat/completions", {**chat, "stream": True}, None, 200),
        ("/v1/completions", {**short, "prompt": f"{number}"}, None, 200),
        ("/v1/completions", {**short, "prompt": f"{number}", "stream": True, "max_tokens": 64}, 1, 200),
        ("/v1/chat/completions", {**chat, "temperature": "hot"}, None, 400),
        ("/v1/chat/completions", b'{"messages": [', None, 400),
        ("/tokenize", {"prompt": f"{number}"}, None, 200),
        ("/v1/nothing", None, None, 404),
        ("/v1/models", None, None, 200),
        ("/v1/chat/completions", {**chat, "logprobs": True, "top_logprobs": 2}, None, 200),
    ]
    return kinds[number % len(kinds)]


async def _held(port: int, process: psutil.Popen) -> dict[str, int]:
    """Return what the server's process holds once the clients that left are forgotten."""
    client, answers = Client(port), -1
    for _ in range(100):
        answers = _open_answers((await client.ask("/metrics")).body)
        if answers == 0:
            break
        await asyncio.sleep(0.05)
    await client.close()
    await asyncio.sleep(0.05)
    return {
        "open_answers": answers,
        "threads": process.num_threads(),
        "open_files": process.num_fds(),
        "connections": len(process.net_connections()),
        "resident_bytes": process.memory_info().rss,
    }


def _open_answers(metrics: str) -> int:
    """Return how many answers are being written or waited for, by a page of metrics."""
    return next(int(line.split()[1]) for line in metrics.splitlines() if line.startswith("tgc_answers_open "))


def _show_requests(found: dict[str, Any]) -> None:
    first, last = found["curve"][1], found["curve"][-1]
    print(
        f"requests    {found['count']:,}, {found['per_second']:,.0f} a second, answered "
        + ", ".join(f"{status}: {count}" for status, count in sorted(found["answers"].items())),
        flush=True,
    )
    for what in ("threads", "open_files", "connections", "open_answers", "resident_bytes"):
        print(f"            {what.replace('_', ' ')}: {first[what]:,} after a tenth, {last[what]:,} at the end")
    print(f"            memory grew by {found['memory_growth']:.2%}", flush=True)
