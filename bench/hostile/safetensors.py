"""Safetensors files that lie: another dtype, shape, name, offset or number, and headers drawn from nothing."""

from __future__ import annotations

import json
import math
import random
import struct
from typing import Any

from bench.hostile.values import STRINGS, changed, hostile_value, json_bytes

WIDTHS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F4"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 8),
}
NUMBERS = (math.nan, math.inf, -math.inf, 3e38, -3e38, 1e-45, 1e30, 0.0)


def changed_file(content: bytes, chance: random.Random) -> bytes:
    """Return a safetensors file with one lie in it."""
    begin = 8 + struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8:begin]), content[begin:]
    names = [name for name in header if name != "__metadata__"]
    if not names:
        return random_file(chance)
    name = chance.choice(names)
    entry = header[name]
    what = chance.choice(["dtype", "shape", "name", "number", "drop", "add", "offsets", "tree", "metadata", "random"])
    match what:
        case "dtype":
            same = [kind for kind, width in WIDTHS.items() if width == WIDTHS.get(entry["dtype"])]
            entry["dtype"] = chance.choice(same if chance.random() < 0.7 else [*WIDTHS, "", "F99"])
        case "shape":
            size = math.prod(entry["shape"])
            entry["shape"] = chance.choice([[size], [1, size], [size, 1, 1], entry["shape"][::-1], [], [0], [size, 0]])
        case "name":
            header[chance.choice([*STRINGS, name.upper(), name + ".weight", f"blocks.{10**9}.x"])] = header.pop(name)
        case "number":
            data = _with_number(data, entry, chance)
        case "drop":
            del header[name]
            if chance.random() < 0.5:
                header, data = _packed(header, data)
        case "add":
            more = chance.choice([1, 1000, 20_000])
            for number in range(more):
                header[f"x.{number}" if more > 1 else chance.choice(STRINGS)] = {**entry, "shape": [0]}
            header, data = _packed(header, data, empty=True)
        case "offsets":
            first, last = entry["data_offsets"]
            entry["data_offsets"] = chance.choice(
                [[last, first], [0, last], [first, last + 4], [first, 2**63], [-4, last], [first], [first, first]]
            )
        case "tree":
            header = changed(header, chance)
        case "metadata":
            header["__metadata__"] = changed(header.get("__metadata__", {"model_config": "{}"}), chance)
        case _:
            return random_file(chance)
    return assemble(header, data, chance)


def _with_number(data: bytes, entry: Any, chance: random.Random) -> bytes:
    """Put a number that breaks arithmetic into one place of a tensor."""
    formats = {"F32": "<f", "F64": "<d", "F16": "<e", "I64": "<q", "I32": "<i"}
    code = formats.get(entry["dtype"])
    first, last = entry["data_offsets"]
    if code is None or last <= first:
        return data
    value = chance.choice(NUMBERS) if code in ("<f", "<d") else chance.choice([0, -1, 100, -100])
    place = first + struct.calcsize(code) * chance.randrange((last - first) // struct.calcsize(code))
    return data[:place] + struct.pack(code, value) + data[place + struct.calcsize(code) :]


def _packed(header: dict[str, Any], data: bytes, *, empty: bool = False) -> tuple[dict[str, Any], bytes]:
    """Give the tensors offsets without gaps, so that only the list of them is unusual."""
    packed, pieces, end = {}, [], 0
    for name, entry in header.items():
        if name == "__metadata__":
            packed[name] = entry
            continue
        first, last = (0, 0) if empty and entry["shape"] == [0] else entry["data_offsets"]
        pieces.append(data[first:last])
        packed[name] = {**entry, "data_offsets": [end, end + last - first]}
        end += last - first
    return packed, b"".join(pieces)


def random_file(chance: random.Random) -> bytes:
    """Return a file with a header drawn from the grammar of headers, true and false."""
    header: Any = {}
    end = 0
    for number in range(chance.choice([0, 1, 2, 3, 200])):
        kind = chance.choice(list(WIDTHS))
        shape = [chance.choice([0, 1, 2, 3, 5, 2**20, 2**32, 2**63]) for _ in range(chance.choice([0, 1, 2, 3, 40]))]
        size = math.prod(shape) * WIDTHS[kind]
        last = end + size if size < 10_000 and chance.random() < 0.8 else chance.choice([end, 2**40, 2**64, -1])
        name = chance.choice([*STRINGS, f"w{number}", "token_embedding.weight", "transformer.wte.weight"])
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, last]}
        end = last if 0 <= last < 100_000 else end
    if chance.random() < 0.4:
        header["__metadata__"] = chance.choice(
            [{}, {"model_config": "[" * 10_000}, {"a": 1}, [], hostile_value(chance)]
        )
    if chance.random() < 0.3:
        header = changed(header, chance)
    return assemble(header, bytes(end), chance)


def assemble(header: Any, data: bytes, chance: random.Random) -> bytes:
    """Return a file of a header and data; now and then its length is a lie, too."""
    text = json_bytes(header)
    text += b" " * (-len(text) % 8)
    length = len(text)
    if chance.random() < 0.06:
        length = chance.choice([0, 1, length - 1, length + 1, length + len(data), 2**31, 2**62, 2**64 - 1])
    if chance.random() < 0.06:
        data = chance.choice([data[:-1], data + b"\0", b"", data * 2])
    return struct.pack("<Q", length) + text + data
