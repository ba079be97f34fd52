"""What a model may ask while it answers: tools, none of which runs a program.

calculator.py   sums, lengths of words and counts of letters
"""

from tinygrad_chat.tools.calculator import calculate

__all__ = ["calculate"]
