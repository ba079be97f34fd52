"""Which of a device's algorithms computes each matrix product of a training step."""

from __future__ import annotations

from typing import Any

LONGEST = 100  # characters of a name from a file that are shown


class ProductChoices:
    """An algorithm for each product, chosen by its time when the product first comes, then kept.

    Kernels make the choices and look them up. Another algorithm sums in another order, so a run that goes on needs the
    same choices to compute the same bits: `recall` gives it those of its file. They are valid only for `made_by`, a
    device and a version of its library. `told` is why recalled choices were not used, in one line.
    """

    MOST = 512
    """The most products that are told apart: a GPT's step has some twenty. Where shapes vary without end, the library
    chooses for the rest."""

    def __init__(self) -> None:
        self.made_by = ""
        self.algorithms: dict[str, str] = {}
        """product -> algorithm, as the kernels write them"""
        self.plans: dict[Any, Any] = {}
        """What the kernels keep of a product, to find it quickly."""
        self.library: Any = None
        """What the kernels compute them with, once they have looked for it."""
        self.has_new = False
        """Whether there are choices that have not been saved."""
        self.told: str | None = None

    def recall(self, made_by: str, algorithms: dict[str, str]) -> None:
        """Begin with choices made earlier."""
        self.made_by, self.algorithms = made_by, dict(algorithms)

    def begin(self, made_by: str) -> None:
        """Let the device and the library be those named; forget the choices of any other."""
        if self.algorithms and self.made_by != made_by:
            self.tell(f"made on {self.made_by[:LONGEST]}, this is {made_by}")
            self.algorithms = {}
        self.made_by = made_by

    def choose(self, product: str, algorithm: str) -> None:
        """Keep the algorithm of a product."""
        if self.algorithms.get(product) != algorithm:
            self.algorithms[product] = algorithm
            self.has_new = True

    def tell(self, reason: str) -> None:
        """Remember the first reason why choices made earlier are not used."""
        self.told = self.told or reason
