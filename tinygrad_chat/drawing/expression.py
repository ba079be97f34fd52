"""A formula given as text, computed with Values. It is parsed, never executed; anything not listed below is refused."""

from __future__ import annotations

import ast
import contextlib
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from tinygrad_chat.autograd import Value
from tinygrad_chat.autograd.value import constant
from tinygrad_chat.drawing.graph import MAX_NODES, nodes_below, number_text
from tinygrad_chat.errors import UsageError

FUNCTIONS: dict[str, Callable[[Value], Value]] = {
    "exp": Value.exp,
    "log": Value.log,
    "sqrt": Value.sqrt,
    "tanh": Value.tanh,
    "relu": Value.relu,
}
OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_ALLOWED = f"names, numbers, + - * / ** and {' '.join(FUNCTIONS)}"


class Expression:
    """A formula such as `tanh(a*b + c)`; `names` are its variables, in order. Raises UsageError for any other text.

    >>> from tinygrad_chat import Value
    >>> Expression("a*b + 1").evaluate({"a": Value(2.0), "b": Value(3.0)}).data
    7.0
    """

    def __init__(self, text: str) -> None:
        self._text = text.strip()
        try:
            with warnings.catch_warnings(action="ignore"):  # about spellings such as 1or 2
                self._tree = ast.parse(self._text, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else "nested too deeply or not text"
            raise UsageError(f"expression: expected a formula such as 'tanh(a*b + c)' ({reason})") from error
        parts = sum(isinstance(node, ast.expr) for node in ast.walk(self._tree))
        if parts > MAX_NODES:
            raise UsageError(
                f"expression: expected at most {MAX_NODES} names, numbers and operations, received {parts}"
            )
        self._check(self._tree)
        called = {id(node.func) for node in ast.walk(self._tree) if isinstance(node, ast.Call)}
        variables = [node for node in ast.walk(self._tree) if isinstance(node, ast.Name) and id(node) not in called]
        self.names = list(
            dict.fromkeys(node.id for node in sorted(variables, key=lambda node: (node.lineno, node.col_offset)))
        )

    def _check(self, node: ast.expr) -> None:
        match node:
            case ast.Name() if node.id not in FUNCTIONS:
                inner = []
            case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
                inner = []
            case ast.UnaryOp(op=ast.USub()):
                inner = [node.operand]
            case ast.BinOp() if type(node.op) in OPERATORS:
                inner = [node.left, node.right]
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
                inner = [argument]
            case _:
                raise UsageError(f"expression: {self._quoted(node)} is not allowed; expected {_ALLOWED}")
        for part in inner:
            self._check(part)

    def evaluate(self, variables: Mapping[str, Value]) -> Value:
        """Compute it and its gradients. Raises UsageError, naming the part, if a number is not finite."""
        result = self._value(self._tree, variables)
        result.backward()
        if not all(math.isfinite(node.grad) for node in nodes_below(result)):
            raise UsageError("expression: a gradient is not finite here; choose other numbers")
        return result

    def _value(self, node: ast.AST, variables: Mapping[str, Value]) -> Value:
        match node:
            case ast.Name():
                return variables[node.id]
            case ast.Constant(value=int() | float()):
                return self._computed(node, constant, node.value)
            case ast.UnaryOp(operand=ast.Constant(value=int() | float() as number)):
                return self._computed(node, constant, -number)  # a negative number, not a number and an operation
            case ast.UnaryOp():
                return self._computed(node, Value.__neg__, self._value(node.operand, variables))
            case ast.BinOp():
                left, right = self._value(node.left, variables), self._value(node.right, variables)
                return self._computed(node, OPERATORS[type(node.op)], left, right)
            case ast.Call(func=ast.Name(id=name), args=[argument]):
                return self._computed(node, FUNCTIONS[name], self._value(argument, variables))
        raise AssertionError(f"_check let {node} pass")

    def _computed(self, node: Any, operation: Callable[..., Value], *operands: Any) -> Value:
        with contextlib.suppress(OverflowError):  # an integer too large for a float
            value = operation(*operands)
            value.data = float(value.data)
            if math.isfinite(value.data):
                return value
        numbers = " and ".join(number_text(operand.data) for operand in operands if isinstance(operand, Value))
        where = f" at {numbers}" if numbers else ""
        raise UsageError(f"expression: {self._quoted(node)} is not a finite real number{where}; choose other numbers")

    def _quoted(self, node: ast.expr) -> str:
        return repr(" ".join((ast.get_source_segment(self._text, node) or "it").split()))
