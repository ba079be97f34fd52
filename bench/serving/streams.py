"""Many streams at once, each with a prompt and a seed of its own: each one's text must be what the same request is
answered alone, and the server's time must be shared fairly among them."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
import time
from collections.abc import Sequence
from typing import Any

from bench.serving.client import Answer, Client
from bench.serving.process import said

FEWEST = 8  # tokens from which on a stream has a speed that means something
SENTENCE = "the server answers every stream with its own words and mixes none of them up"


async def measure_streams(port: int, count: int, new_tokens: int) -> dict[str, Any]:
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
    paces = [(each.usage["completion_tokens"], each.finished - each.first) for each in whole]
    paces = [pace for pace in paces if pace[0] >= FEWEST]
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
        "seconds_to_first_token": spread([each.first for each in whole]),
        "seconds_to_end": spread([each.finished for each in whole]),
        "fairness": _jain([seconds / (tokens - 1) for tokens, seconds in paces]),
        "streams_compared": len(paces),
        "objections": objections,
    }


def _stream_request(number: int, new_tokens: int) -> dict[str, Any]:
    chance = random.Random(number)
    words = " ".join(chance.choices(SENTENCE.split(), k=6))
    return {
        "model": "tgc",
        "messages": [said("user", f"{number} {words}")],
        "max_tokens": new_tokens,
        "temperature": 1.5,
        "seed": number,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Return the smallest, the median, the 99th percentile and the largest."""
    ordered = sorted(seconds) or [math.nan]
    last = ordered[min(len(ordered) - 1, math.ceil(0.99 * len(ordered)) - 1)]
    return {
        "smallest": ordered[0],
        "median": statistics.median(ordered),
        "99th_percentile": last,
        "largest": ordered[-1],
    }


def _jain(waits: Sequence[float]) -> float:
    """Return Jain's index of the seconds that each waits for a token: 1 where all wait as long, 1 / n where one waits
    for all. Of their inverse it would say how many answers the client has read in one go, at no seconds a token."""
    return sum(waits) ** 2 / (len(waits) * sum(wait * wait for wait in waits)) if waits else math.nan


def show_streams(found: dict[str, Any]) -> None:
    print(
        f"streams     {found['count']} at once: {found['lost']} lost, {found['differing']} differ from what they are "
        f"alone; {found['tokens_per_second']:,.0f} tokens/s in all, {found['tokens_per_second_alone']:,.0f} one by one",
        flush=True,
    )
    for name in ("seconds_to_first_token", "seconds_to_end"):
        figures = ", ".join(f"{key.replace('_', ' ')} {value:.2f}" for key, value in found[name].items())
        print(f"            {name.replace('_', ' ')}: {figures}", flush=True)
    print(
        f"            fairness {found['fairness']:.3f} (Jain's index, seconds a token of {found['streams_compared']})",
        flush=True,
    )
