"""The command `tgc`: one file a command, and the only place that knows typer and rich."""

from tinygrad_chat.cli.app import main

__all__ = ["main"]
