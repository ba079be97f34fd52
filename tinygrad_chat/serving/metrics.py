"""Metrics in Prometheus's text format: a line for each number."""

from __future__ import annotations

import time
from collections import Counter


class Metrics:
    """Counters since the server was started."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        """Number of requests by path and status."""
        self.prompted = 0
        """Tokens of prompts."""
        self.generated = 0
        """Tokens of answers."""
        self.stepping = 0.0
        """Seconds spent in engine steps."""
        self._began = time.time()

    def text(self, *, places: int, step: int) -> str:
        """Return all metrics, with the number of `places` taken now and the model's `step`."""
        requests = [
            f'tgc_requests_total{{path="{path}",status="{status}"}} {number}'
            for (path, status), number in sorted(self.requests.items())
        ]
        lines = [
            *_about("tgc_requests_total", "counter", "requests by path and status"),
            *requests,
            *_about("tgc_prompt_tokens_total", "counter", "prompt tokens"),
            f"tgc_prompt_tokens_total {self.prompted}",
            *_about("tgc_generated_tokens_total", "counter", "generated tokens"),
            f"tgc_generated_tokens_total {self.generated}",
            *_about("tgc_step_seconds_total", "counter", "seconds spent in engine steps"),
            f"tgc_step_seconds_total {self.stepping:.6f}",
            *_about("tgc_answers_open", "gauge", "answers in progress or queued"),
            f"tgc_answers_open {places}",
            *_about("tgc_model_step", "gauge", "the model's training step"),
            f"tgc_model_step {step}",
            *_about("tgc_start_time_seconds", "gauge", "when the server was started"),
            f"tgc_start_time_seconds {self._began:.3f}",
        ]
        return "\n".join(lines) + "\n"


def _about(name: str, kind: str, purpose: str) -> tuple[str, str]:
    return f"# HELP {name} {purpose}", f"# TYPE {name} {kind}"
