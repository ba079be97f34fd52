"""Golden curves: ten losses of a tiny model for each engine; a change of numbers fails and says by how much."""

from __future__ import annotations

import json

import pytest

from tests.golden import make

TOLERANCE = {
    "tensor": 1e-5,
    "scalar": 1e-9,
}  # relative: float32 sums in another order elsewhere, Python's floats do not


def largest_change(found: list[float], golden: list[float]) -> float:
    return max(abs(mine / old - 1) for mine, old in zip(found, golden, strict=True))


@pytest.mark.parametrize(("mode", "model"), make.KINDS)
def test_the_first_ten_losses_are_what_they_were(mode: str, model: str):
    golden = json.loads(make.CURVES.read_text(encoding="utf-8"))[f"{mode} {model}"]
    assert golden["command"] == make.command(mode, model)
    found = make.losses(mode, model)
    change = largest_change(found, golden["losses"])
    assert change <= TOLERANCE[mode], f"losses changed by up to {change:.1e}: {found}, golden {golden['losses']}"


def test_both_engines_start_from_the_same_loss():
    golden = json.loads(make.CURVES.read_text(encoding="utf-8"))
    for model in ("bigram", "mini-gpt"):
        tensor, scalar = (golden[f"{mode} {model}"]["losses"] for mode in ("tensor", "scalar"))
        assert largest_change(tensor, scalar) < 1e-4
