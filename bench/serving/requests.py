"""Thousands of short requests over a few connections, of which some are mistaken and some clients leave before the end:
how many threads, open files, answers and bytes of memory the server holds as they go by."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import psutil

from bench.serving.client import Client
from bench.serving.process import said

MAX_GROWTH = 0.05  # of resident memory, after the first tenth of the requests
CONNECTIONS = 8


async def measure_requests(port: int, process: psutil.Popen, count: int) -> dict[str, Any]:
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
    if growth >= MAX_GROWTH:
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
    chat = {**short, "messages": [said("user", f"{number}")]}
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


def show_requests(found: dict[str, Any]) -> None:
    first, last = found["curve"][1], found["curve"][-1]
    print(
        f"requests    {found['count']:,}, {found['per_second']:,.0f} a second, answered "
        + ", ".join(f"{status}: {count}" for status, count in sorted(found["answers"].items())),
        flush=True,
    )
    for what in ("threads", "open_files", "connections", "open_answers", "resident_bytes"):
        print(f"            {what.replace('_', ' ')}: {first[what]:,} after a tenth, {last[what]:,} at the end")
    print(f"            memory grew by {found['memory_growth']:.2%}", flush=True)
