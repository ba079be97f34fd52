"""products.json: the algorithm of each matrix product of a run's steps on a GPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from tinygrad_chat.files import explained, is_there, write_atomic
from tinygrad_chat.schema import read_json


class Products(TypedDict):
    """The algorithms of products, and what they are algorithms of: a device and a version of its library."""

    made_by: str
    algorithms: dict[str, str]


def read_products(path: Path) -> Products | None:
    """Return what `write_products` wrote, None if there is no file. Raises FormatError if it is damaged, and
    StorageError if it cannot be read."""
    with explained(path, "read"):
        return read_json(path, Products, source=path.name) if is_there(path) else None


def write_products(path: Path, made_by: str, algorithms: Mapping[str, str]) -> None:
    """Save the algorithms of products. Raises StorageError."""
    record = Products(made_by=made_by, algorithms=dict(algorithms))
    write_atomic(path, json.dumps(record, indent=1).encode())
