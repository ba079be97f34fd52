"""How a figure of matplotlib, the extra `plots`, becomes files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from tinygrad_chat.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and as SVG into `folder`; return their paths."""
    paths = [folder / f"{name}.{kind}" for kind in ("png", "svg")]
    for path in paths:
        content = io.BytesIO()
        figure.savefig(content, format=path.suffix[1:], dpi=150)
        write_atomic(path, content.getvalue())
    return paths
