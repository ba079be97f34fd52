"""Text of many kinds, made from a seed: scripts, code, numbers, emoji, blanks, and bytes that are no UTF-8."""

from __future__ import annotations

import random

LETTERS = {
    "latin": "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "accents": "àéîõüßøæœšžłđþ\u017f",
    "cyrillic": "абвгдежзиклмнопрстуфхцчшщыьэюяАБВ",
    "greek": "αβγδεζηθικλμνξοπρστυφχψω",
    "arabic": "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "hebrew": "אבגדהוזחטיכלמנסעפצקרשת",
    "devanagari": "अआइईउऊएऐओऔकखगघचछजझटठडढणतथदधन\u093e\u093f\u0940\u0902\u094d",
    "han": "的一是不了人我在有他这中大来上国",
    "kana": "あいうえおかきくけこアイウエオ",
    "hangul": "가나다라마바사아자차카타파하",
    "thai": "กขคงจฉชซ\u0e31\u0e34\u0e35",
    "gothic": "\U00010330\U00010331\U00010332",
}
DIGITS = "01234567890123456789\u0660\u0661\u0967\u00bd\u00b2\u2167\U0001d7ce\U0001d7cf"
SIGNS = "!?.,;:'\"()[]{}<>+-*/=_#@$%^&|~`\u2014\u2026\u00ab\u00bb\u3002\uff0c\u20ac"
EMOJI = ["😀", "🎉", "👍🏽", "👩\u200d💻", "🇩🇪", "❤\ufe0f", "☃"]
BLANKS = [" "] * 12 + ["  ", "\t", "\n", "\n\n", "\r\n", " \n  ", "\u00a0", "\u3000", "\u2028", "    ", "\x0b", "\x1c"]
CONTRACTIONS = ["'s", "'t", "'LL", "'ve", "'re", "'D", "'m", "\u2019s", "'x", "'\u017f"]
CODE = [
    "def f(x):\n    return x",
    "i++;",
    "a[i] != b",
    "<div class='x'>",
    "0x1F",
    "self._x",
    "// TODO\n",
    "x = {1: 2}\t",
]
BROKEN = "\udc80\udcff\udcc3\udce2\udc82"


def words(random: random.Random, count: int, *, broken: bool = False) -> str:
    """Return a text of so many words, numbers, signs and blanks; `broken` ones also hold bytes that are no UTF-8."""
    kinds = [*LETTERS]
    script = random.choice(kinds)
    parts = []
    for _ in range(count):
        kind = random.random()
        if kind < 0.55:
            letters = LETTERS[script if random.random() < 0.8 else random.choice(kinds)]
            parts.append("".join(random.choices(letters, k=random.randint(1, 8))))
        elif kind < 0.68:
            parts.append("".join(random.choices(DIGITS, k=random.randint(1, 6))))
        elif kind < 0.80:
            parts.append("".join(random.choices(SIGNS, k=random.randint(1, 3))))
        elif kind < 0.86:
            parts.append(random.choice(EMOJI))
        elif kind < 0.92:
            parts.append(random.choice(CONTRACTIONS))
        elif kind < 0.97 or not broken:
            parts.append(random.choice(CODE))
        else:
            parts.append("".join(random.choices(BROKEN, k=random.randint(1, 3))))
        if random.random() < 0.75:
            parts.append(random.choice(BLANKS))
    return "".join(parts)


def cut(text: str, random: random.Random, longest: int) -> list[str]:
    """Return a text in pieces of any length up to the `longest`."""
    pieces = []
    while text:
        length = random.randint(0, longest)
        pieces.append(text[:length])
        text = text[length:]
    return pieces
