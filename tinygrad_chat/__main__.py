"""The program `tgc`, also available as `python -m tinygrad_chat`."""

from __future__ import annotations

import _signal  # pyright: ignore[reportMissingImports] - `signal` itself takes several times as long to import

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # no traceback before anything has begun
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

from tinygrad_chat.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
