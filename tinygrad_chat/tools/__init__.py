"""Tools that a model may call while it answers; none of them runs a program.

calculator.py   sums, lengths of words and counts of letters
"""

from tinygrad_chat.tools.calculator import calculate

__all__ = ["calculate"]
