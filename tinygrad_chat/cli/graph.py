"""`tgc graph`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygrad_chat.errors import UsageError

if TYPE_CHECKING:
    from tinygrad_chat.autograd import Node

MODELS = ("bigram", "mini-gpt", "nanochat")  # for your own, call `draw_svg` from Python
TOKENS, TARGETS = [[0, 1, 2, 3], [3, 1, 0, 2]], [[1, 2, 3, 4], [1, 0, 2, 4]]
"""The batch of the training step that is drawn."""


def graph(
    expression: Annotated[
        str | None, typer.Argument(help="a formula: names, numbers, + - * / ** and exp log sqrt tanh relu")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=NUMBER", help="a variable of the formula; repeatable")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="|".join(MODELS), help="draw one training step of a tiny model instead of a formula"),
    ] = None,
    out: Annotated[
        str, typer.Option(help="where to: .html steps through the backward sweep, .svg is a picture")
    ] = "graph.html",
) -> None:
    """Draw a computation's graph with its gradients, as a picture or as a page that steps through the sweep.

    For example: tgc graph "tanh(a*b + c)" --set a=2 --set b=-3 --set c=6.5
    """
    if (expression is None) == (model is None):
        raise UsageError("graph: expected either a formula such as 'tanh(a*b + c)' or --model")
    if model is not None and model not in MODELS:
        raise UsageError(f"--model: expected one of {', '.join(MODELS)}, received {model!r}")
    if model is not None and settings:
        raise UsageError("--set: only a formula has variables, --model has none")

    from tinygrad_chat.drawing import draw_html, draw_svg
    from tinygrad_chat.files import user_path, write_atomic

    path = user_path(out)
    if path.suffix not in (".html", ".svg"):
        raise UsageError(f"--out: expected a name that ends in .html or .svg, received {out!r}")

    chosen_here: list[str] = []
    if expression is not None:
        title, numbers = " ".join(expression.split()), _numbers(settings or [])
        root, leaves = _formula(expression, numbers)
        chosen_here = [f"{name}={leaf.data:g}" for name, leaf in leaves.items() if name not in numbers]
    else:
        title = f"one training step of {model}"
        root, leaves = _training_step(str(model))
    names = {leaf.birth: name for name, leaf in leaves.items()}
    picture = draw_svg(root, names) if path.suffix == ".svg" else draw_html(root, names, title=title)
    write_atomic(path, picture.encode())
    if chosen_here:
        print(f"not set, so chosen here: {' '.join(chosen_here)}; change with --set {chosen_here[0]}\n")
    for line in _report(title, root, leaves):
        print(line)
    keys = "; open it in a browser, the arrow keys step through the sweep" if path.suffix == ".html" else ""
    print(f"\nwrote {path}{keys}")


def _numbers(settings: Sequence[str]) -> dict[str, float]:
    """Return the numbers given by --set, by name. Raises UsageError for one that is not NAME=NUMBER, or set twice."""
    numbers: dict[str, float] = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (name.isidentifier() and math.isfinite(number)):
            raise UsageError(f"--set: expected NAME=NUMBER such as a=2, received {setting!r}")
        if name in numbers:
            raise UsageError(f"--set: {name} is set twice")
        numbers[name] = number
    return numbers


def _formula(text: str, numbers: Mapping[str, float]) -> tuple[Node, dict[str, Any]]:
    """Compute a formula and its gradients; return the result and the variables by name."""
    from tinygrad_chat.autograd import Value
    from tinygrad_chat.drawing.expression import Expression

    formula = Expression(text)
    unknown = [name for name in numbers if name not in formula.names]
    if unknown:
        raise UsageError(
            f"--set: {unknown[0]} is not in the formula, which has {', '.join(formula.names) or 'no names'}"
        )
    free = (float(number) for number in itertools.count(1) if number not in numbers.values())
    chosen = {name: numbers[name] if name in numbers else next(free) for name in formula.names}
    variables = {name: Value(number, label=name) for name, number in chosen.items()}
    return formula.evaluate(variables), variables


def _training_step(name: str) -> tuple[Node, dict[str, Any]]:
    """Return the loss of a tiny model after its backward pass, and the parameters by name."""
    from tinygrad_chat.config.resolve import Facts, resolve

    vocabulary = max(map(max, TARGETS)) + 1
    blocks = {} if name == "bigram" else {"layers": 1, "heads": 2}
    config = resolve({"model": name, "width": 8, "context": len(TOKENS[0]), **blocks}, Facts(vocabulary))

    import numpy as np

    from tinygrad_chat.autograd import reference_ops
    from tinygrad_chat.models.gpt import GPT

    model = GPT(vocabulary, config.model, random=np.random.default_rng(1))
    with reference_ops():  # every node keeps its numbers
        loss: Any = model.loss(np.array(TOKENS), np.array(TARGETS))
        loss.backward(keep_graph=True)
    parameters = model.parameters()
    return loss, {path.removeprefix("blocks.0."): parameters[path] for path in parameters}


def _report(title: str, root: Any, leaves: Mapping[str, Any]) -> list[str]:
    """A line for the result, and one for each leaf with its value and gradient."""
    from tinygrad_chat.drawing.graph import summary

    rows = [(name, summary(leaf.data), summary(leaf.grad)) for name, leaf in leaves.items()]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    return [
        f"{title} = {summary(root.data)}",
        *(f"  {name:<{widths[0]}} = {value:<{widths[1]}}  gradient {gradient}" for name, value, gradient in rows),
    ]
