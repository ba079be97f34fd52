"""A calculator for models, in Python's notation. It parses expressions itself and never runs them as code.

    sum     = product { ("+" | "-") product }
    product = signed { ("*" | "/" | "//" | "%") signed }
    signed  = ("-" | "+") signed | power
    power   = atom [ "**" signed ]
    atom    = NUMBER | NAME | "(" sum ")" | "len" "(" sum ")" | "round" "(" sum "," sum ")"
            | TEXT { "." "count" "(" sum ")" | "[::-1]" }

Each rule of this grammar is a method of the parser. Numbers are fractions, so 0.1+0.2 is 0.3.

>>> calculate("(12+30)*231"), calculate("0.1+0.2"), calculate("2/3"), calculate("7/0")
('9702', '0.3', '0.666667', 'error: division by zero')
>>> calculate("'strawberry'.count('r')"), calculate("loss*2", {"loss": 0.9}), calculate("9**9**9")
('3', '1.8', 'error: too large')
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

MAX_CHARACTERS = 500
MAX_DEPTH = 30
MAX_DIGITS = 200
EXACT_PLACES, ROUNDED_PLACES = 12, 6
"""A number with at most EXACT_PLACES decimal places is written in full, any other rounded to ROUNDED_PLACES."""

TOKEN = re.compile(
    r"""\s*(?:
        (?P<number> \d+(?:\.\d*)? | \.\d+ )
      | (?P<name>   [A-Za-z_]\w* )
      | (?P<text>   '[^']*' | "[^"]*" )
      | (?P<sign>   \*\* | // | \[::-1\] | [-+*/%(),.] )
      | (?P<end>    $ )
      | (?P<other>  . )
    )""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
OPERATORS: dict[str, Callable[[Fraction, Fraction], Fraction | int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}


def calculate(expression: str, facts: Mapping[str, str | int | float] = {}) -> str:
    """Return the value of an expression as text, or `error: ...` if it has none.

    A bare name stands for one of `facts`. No expression raises an exception, or takes longer than a few milliseconds.
    """
    try:
        if len(expression) > MAX_CHARACTERS:
            raise _MistakeError("too long")
        return _written(_Parser(expression, facts).whole())
    except ZeroDivisionError:
        return "error: division by zero"
    except _MistakeError as mistake:
        return f"error: {mistake}"


class _MistakeError(Exception):
    """What is wrong with an expression."""


class _Parser:
    """A recursive-descent parser that evaluates as it parses: one method for each rule of the grammar."""

    def __init__(self, expression: str, facts: Mapping[str, str | int | float]) -> None:
        self.facts = facts
        self.tokens = [(match.lastgroup, match[match.lastgroup or 0]) for match in TOKEN.finditer(expression)]
        self.at = 0
        self.depth = 0

    def whole(self) -> Fraction | str:
        value = self.sum()
        if self.kind != "end":
            raise self.unexpected()
        return value

    def sum(self) -> Fraction | str:
        return self.operations(self.product, "+", "-")

    def product(self) -> Fraction | str:
        return self.operations(self.signed, "*", "/", "//", "%")

    def operations(self, operand: Callable[[], Fraction | str], *signs: str) -> Fraction | str:
        value = operand()
        while sign := self.take(*signs):
            value = _bounded(Fraction(OPERATORS[sign](_number(value), _number(operand()))))
        return value

    def signed(self) -> Fraction | str:
        self.depth += 1  # all recursion in the grammar passes through here
        if self.depth > MAX_DEPTH:
            raise _MistakeError("too deep")
        if sign := self.take("-", "+"):
            value = _number(self.signed())
            value = -value if sign == "-" else value
        else:
            value = self.power()
        self.depth -= 1
        return value

    def power(self) -> Fraction | str:
        base = self.atom()
        return _power(_number(base), _number(self.signed())) if self.take("**") else base

    def atom(self) -> Fraction | str:
        kind, token = self.kind, self.token
        if kind == "number":
            self.at += 1
            return _bounded(Fraction(token))
        if kind == "text":
            self.at += 1
            return self.methods(token[1:-1])
        if kind == "name":
            self.at += 1
            return self.named(token)
        if self.take("("):
            value = self.sum()
            self.expect(")")
            return value
        raise self.unexpected()

    def methods(self, text: str) -> Fraction | str:
        while True:
            if self.take("[::-1]"):
                text = text[::-1]
            elif self.take("."):
                self.expect("count")
                (part,) = self.arguments(1)
                return Fraction(text.count(_text(part)))
            else:
                return text

    def named(self, name: str) -> Fraction | str:
        if name == "len":
            (text,) = self.arguments(1)
            return Fraction(len(_text(text)))
        if name == "round":
            value, places = self.arguments(2)
            if not 0 <= _number(places) <= EXACT_PLACES:
                raise _MistakeError(f"round takes 0 to {EXACT_PLACES} places")
            return Fraction(round(_number(value), int(_number(places))))
        if name not in self.facts:
            raise _MistakeError(f"unknown name {name[:30]}")
        return _fact(self.facts[name])

    def arguments(self, count: int) -> list[Fraction | str]:
        """Parse `count` values in parentheses, separated by commas."""
        self.expect("(")
        values = [self.sum()]
        while len(values) < count:
            self.expect(",")
            values.append(self.sum())
        self.expect(")")
        return values

    @property
    def kind(self) -> str | None:
        return self.tokens[self.at][0]

    @property
    def token(self) -> str:
        return self.tokens[self.at][1]

    def take(self, *tokens: str) -> str | None:
        """Consume and return the next token if it is one of these signs or names; None otherwise."""
        if self.kind not in ("sign", "name") or self.token not in tokens:
            return None
        self.at += 1
        return self.tokens[self.at - 1][1]

    def expect(self, token: str) -> None:
        if not self.take(token):
            raise self.unexpected()

    def unexpected(self) -> _MistakeError:
        return _MistakeError("unexpected end" if self.kind == "end" else f"unexpected {self.token[:30]}")


def _number(value: Fraction | str) -> Fraction:
    if isinstance(value, str):
        raise _MistakeError("a number is expected, not text")
    return value


def _text(value: Fraction | str) -> str:
    if isinstance(value, Fraction):
        raise _MistakeError("text is expected, not a number")
    return value


def _fact(value: str | int | float) -> Fraction | str:
    if isinstance(value, str):
        return value
    try:
        return _bounded(Fraction(repr(value)))  # 0.1 in decimal, not its nearest binary fraction
    except ValueError:
        raise _MistakeError(f"{value} is no number") from None


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise _MistakeError("only whole numbers are exponents")
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) * (bits - 1) > MAX_DIGITS * 4:  # the result has at least that many bits
        raise _MistakeError("too large")
    return _bounded(base ** int(exponent))


def _bounded(value: Fraction) -> Fraction:
    if max(abs(value.numerator), value.denominator) >= 10**MAX_DIGITS:
        raise _MistakeError("too large")
    return value


def _written(value: Fraction | str) -> str:
    """Format a value: in decimal notation, without trailing zeros."""
    if isinstance(value, str):
        return value
    exact = (places for places in range(EXACT_PLACES + 1) if (value * 10**places).denominator == 1)
    places = next(exact, ROUNDED_PLACES)
    digits = round(abs(value) * 10**places)
    if value and not digits:
        raise _MistakeError("too small")
    whole, rest = divmod(digits, 10**places)
    decimals = f"{rest:0{places}}".rstrip("0") if places else ""
    return f"{'-' if value < 0 else ''}{whole}{'.' if decimals else ''}{decimals}"
