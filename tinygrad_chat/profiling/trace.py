"""A step as a Chrome trace: open it at https://ui.perfetto.dev, or in chrome://tracing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinygrad_chat.backend import Backend
from tinygrad_chat.files import write_atomic
from tinygrad_chat.profiling.recorder import Span


def write_trace(path: Path, spans: Sequence[Span], backend: Backend) -> None:
    """Write the spans of a step, with one row for device time and one for host time. Raises StorageError."""
    write_atomic(path, json.dumps({"traceEvents": trace_events(spans, backend), "displayTimeUnit": "ms"}).encode())


def trace_events(spans: Sequence[Span], backend: Backend) -> list[dict[str, Any]]:
    """Return complete events ("X"), with times in microseconds since the start of the first span."""
    names = {0: f"device: {backend.device}", 1: "host"}
    events: list[dict[str, Any]] = [
        {"name": "thread_name", "ph": "M", "pid": 0, "tid": line, "args": {"name": name}}
        for line, name in names.items()
    ]
    for span in spans:
        device = backend.seconds_between(spans[0].begin, span.begin), backend.seconds_between(span.begin, span.end)
        host = span.host_begin - spans[0].host_begin, span.host_end - span.host_begin
        for line, (begin, length) in enumerate((device, host)):
            events.append(
                {
                    "name": span.name,
                    "cat": span.phase,
                    "ph": "X",
                    "pid": 0,
                    "tid": line,
                    "ts": 1e6 * begin,
                    "dur": 1e6 * length,
                    "args": {"phase": span.phase, "flops": span.flops, "bytes": span.bytes},
                }
            )
    return events
