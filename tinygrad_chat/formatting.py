"""How things are formatted for people: numbers, durations, bytes, counts, shell commands, untrusted text."""

from __future__ import annotations

import json
import os
import re
import reprlib
import shlex
import string
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1
_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # what changes the direction of the text around it
_NO_TEXT = "\u2028\u2029\ud800-\udfff\ufff9-\ufffb\ufeff\ufffe\uffff"  # line separators, lone surrogates, annotations
NOT_PRINTABLE = re.compile(f"[{_CONTROLS}{_DIRECTIONS}{_NO_TEXT}]")
LONGEST_LINE = 400  # characters in a message
_PLAIN = string.ascii_letters + string.digits + "/._-"
BLOCKS, DIGITS = "▁▂▃▄▅▆▇█", "12345678"  # levels of a sparkline, and those for streams that cannot show blocks
GROUPED = (1000, 1e9)  # numbers between these are written with commas
PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def short_number(value: float) -> str:
    """Return a number with four significant digits, very large and small ones with an exponent.

    >>> short_number(1234567), short_number(0.00002), short_number(2.5)
    ('1.235e6', '2e-5', '2.5')
    """
    mantissa, _, power = f"{value:.4g}".partition("e")
    return f"{mantissa}e{int(power)}" if power else mantissa


def decimal_number(value: float, places: int = 4) -> str:
    """Return a number with that many decimal places, a very large one with an exponent.

    >>> decimal_number(2.34561), decimal_number(12.3, 1), decimal_number(1.0142e304)
    ('2.3456', '12.3', '1.014e304')
    """
    return f"{value:.{places}f}" if abs(value) < GROUPED[1] else short_number(value)


def grouped_number(value: float) -> str:
    """Return a number with four significant digits or, from 1,000, as a whole number grouped by commas.

    >>> grouped_number(9.04567), grouped_number(0.00001234), grouped_number(123456)
    ('9.046', '1.234e-5', '123,456')
    """
    return f"{value:,.0f}" if GROUPED[0] <= value < GROUPED[1] else short_number(value)


def scaled_number(value: float) -> str:
    """Return a number with an SI prefix, for the unit to follow.

    >>> scaled_number(1.5e12) + "FLOP", scaled_number(12) + "FLOP"
    ('1.5 TFLOP', '12 FLOP')
    """
    size, prefix = next(((size, prefix) for size, prefix in PREFIXES if value >= size), PREFIXES[-1])
    return f"{value / size:.3g} {prefix}" if value < 1000 * PREFIXES[0][0] else f"{value / size:,.0f} {prefix}"


def duration(seconds: float) -> str:
    """Return a duration in readable units.

    >>> duration(0.0123), duration(8.25), duration(75), duration(3725), duration(200_000)
    ('12.3 ms', '8.2 s', '1 min 15 s', '1 h 2 min', '2 d 7 h')
    """
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours_of_day = divmod(hours, 24)
    if days:
        return f"{days} d {hours_of_day} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def memory_size(size: float) -> str:
    """Return a number of bytes in GiB, or in MiB below 1 GiB.

    >>> memory_size(3 << 29), memory_size(100 << 20)
    ('1.50 GiB', '100 MiB')
    """
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is 1.

    >>> count(1, "window"), count(3000, "step")
    ('1 window', '3,000 steps')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def as_clause(message: str) -> str:
    """Return another program's message in a form that fits into our sentence: one line, no capital, no full stop.

    >>> as_clause("Unable to allocate\\n3 GiB.")
    'unable to allocate 3 GiB'
    """
    line = " ".join(message.split()).rstrip(".?")
    return line[:1].lower() + line[1:]


def short_list(names: Sequence[str]) -> str:
    """Return a short description of several things: the first and how many more.

    >>> short_list([]), short_list(["a.txt"]), short_list(["a.txt", "b.txt", "c.txt"])
    ('none', 'a.txt', 'a.txt and 2 more')
    """
    if not names:
        return "none"
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"


def quoted(path: Path | str) -> str:
    """Quote a path for the platform's shell, Unix or Windows: pasted, it is exactly that path.

    >>> quoted("runs/a"), quoted("runs/my run"), quoted("~run"), quoted(os.fsdecode(b"caf\\xe9"))
    ('runs/a', "'runs/my run'", "'./~run'", "$'caf\\\\xe9'")
    """
    text = str(path)
    return as_command([f".{os.sep}{text}" if text.startswith(("~", "-")) else text])  # else a home folder or an option


def as_command(words: Sequence[str]) -> str:
    """Quote words for the platform's shell, Unix or Windows: pasted, they are exactly these words.

    >>> as_command(["tgc", "train", "--data", "a;b\\x1b"])
    "tgc train --data $'a\\\\x3bb\\\\x1b'"
    """
    return " ".join(map(_windows_word if sys.platform == "win32" else _shell_word, words))


def _windows_word(text: str) -> str:
    import subprocess  # slow to import

    if text and set(text) <= set(f"{_PLAIN}:\\=,+"):
        return text
    return f'"{subprocess.list2cmdline([f" {text}"])[2:]}'  # it quotes for a space but not for &, so add one


def _shell_word(text: str) -> str:
    if one_line(text, most=len(text)) == text:
        return shlex.quote(text)
    escaped = (chr(byte) if chr(byte) in _PLAIN else f"\\x{byte:02x}" for byte in os.fsencode(text))
    return f"$'{''.join(escaped)}'"


def printable(text: str) -> str:
    """Return a text with escapes for characters that a terminal would obey or that cannot be shown: control characters
    other than tab and newline, those that change the direction of text, lone surrogates.

    >>> printable("a\\x1b[31m\\u202e\\n")
    'a\\\\x1b[31m\\\\u202e\\n'
    """
    return NOT_PRINTABLE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def reason_of(error: BaseException) -> str:
    """Return what an error says, in one line, or its class if it says nothing.

    >>> reason_of(MemoryError("no room\\nfor 9 bytes")), reason_of(ValueError())
    ('no room for 9 bytes', 'ValueError')
    """
    return " ".join(str(error).split()) or type(error).__name__


def one_line(text: str, *, most: int = LONGEST_LINE) -> str:
    """Return a text, from any source, as one printable line of at most `most` characters. It is cut in the middle, as
    its beginning says what it is about and its end what to do.

    >>> one_line("a tensor\\nof the name " + "x" * 999 + "; rename it", most=40)
    'a tensor of the nam…xxxxxxxxx; rename it'
    """
    if len(text) > 2 * most:  # of 30 MB, process no more than is shown
        text = f"{text[:most]}{text[-most:]}"
    line = printable(text).replace("\n", " ").replace("\t", " ")
    if len(line) <= most:
        return line
    return f"{line[: most // 2 - 1]}…{line[most // 2 - most :]}"


def as_json(value: Any) -> str:
    """Return a value as one line of JSON in printable ASCII only: the standard library leaves DEL unescaped.

    >>> as_json("\\x1b\\x7f")
    '"\\\\u001b\\\\u007f"'
    """
    return json.dumps(value).replace("\x7f", "\\u007f")


class _ShortRepr(reprlib.Repr):
    """Cuts in the middle; an integer too long to write out quickly is described by its size in bits."""

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if x.bit_length() < 1000 else f"<an integer of {x.bit_length():,} bits>"


_SHORT = _ShortRepr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlevel = 3


def short_repr(value: object) -> str:
    """Return the repr of any value, shortened to fit into a message.

    >>> short_repr(2.5), short_repr(1 << 20_000), short_repr([[0] * 9] * 9)[:35]
    ('2.5', '<an integer of 20,001 bits>', '[[0, 0, 0, 0, 0, 0, ...], [0, 0, 0,')
    """
    return _SHORT.repr(value)


def sparkline(values: Sequence[float], low: float, high: float, levels: str = BLOCKS) -> str:
    """Return values as blocks whose height shows where each lies between `low` and `high`; values beyond are clipped.

    >>> sparkline([4, 2, 1], 1, 4)
    '█▃▁'
    """
    shares = [min(1.0, max(0.0, (value - low) / ((high - low) or 1))) for value in values]
    return "".join(levels[round(share * (len(levels) - 1))] for share in shares)
