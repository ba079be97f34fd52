"""On a device the engine answers as on the host, and of each step's logits only what was drawn comes back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.cuda_on_cpu.device import DEVICE, Device, standing_in
from tests.inference.test_engine import SMALL, VARIANTS
from tinygrad_chat import GPT, Compute, ModelOptions
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.inference.options import GenerationOptions

OPTIONS: list[dict[str, Any]] = [
    {"temperature": 0.0, "repetition_penalty": 1.5},
    {"top_k": 3, "top_p": 0.9},
    {"min_p": 0.1, "temperature": 2.0, "seed": 3},
]


@pytest.mark.parametrize("name", ["learned positions", "rotary", "rotary documents", "nanochat documents"])
def test_a_step_brings_back_what_was_drawn_and_no_logits(name: str, monkeypatch: pytest.MonkeyPatch):
    brought: list[int] = []
    original = Device.to_host
    monkeypatch.setattr(Device, "to_host", lambda self, array: brought.append(array.size) or original(self, array))
    with standing_in():
        answers = []
        for backend in (DEVICE, "numpy"):
            options = ModelOptions(**{**SMALL, **VARIANTS[name]})
            model = GPT(40, options, compute=Compute.choose(backend), dtype=np.float64)
            engine = Engine(model, None, rows=2)
            for _ in range(2):  # the second time from what was kept
                requests = [
                    engine.submit(
                        [1, 2, 3, 4][: 2 + number], GenerationOptions(max_new_tokens=5, **each), alternatives=2
                    )
                    for number, each in enumerate(OPTIONS)
                ]
                while any(request.finish_reason is None for request in requests):
                    engine.step()
                answers.append([(step.token, step.alternatives[0][0]) for each in requests for step in each.steps])
    assert answers[:2] == answers[2:]
    assert max(brought) <= 2 * 2 * (1 + 2)  # for two rows a token and two alternatives, each with its log-probability
