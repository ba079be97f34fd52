"""Faults in the tools that a model calls."""

from __future__ import annotations

FAULTS = {
    "tools/calculator.py": {
        "powers of one are too large": ("abs(exponent) * (bits - 1)", "abs(exponent) * bits"),
        "brackets nest without end": ("if self.depth > MAX_DEPTH:", "if False:"),
        "what stands behind an expression is ignored": ('if self.kind != "end":', "if False:"),
        "powers are taken from left to right": ("_number(self.signed())) if", "_number(self.atom())) if"),
        "decimals lose their leading zeros": ('f"{rest:0{places}}"', 'f"{rest}"'),
    },
}
