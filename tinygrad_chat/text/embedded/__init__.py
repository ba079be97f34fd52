"""Corpora that come with the package as code: their conversations are made on the spot, and nothing is downloaded.

corpus.py   what such a corpus is, and what of it is kept for tasks
python.py   what the functions of this Python do
"""

from tinygrad_chat.text.embedded.corpus import EmbeddedCorpus, is_held_out
from tinygrad_chat.text.embedded.python import PYTHON

CORPORA: dict[str, EmbeddedCorpus] = {corpus.name: corpus for corpus in (PYTHON,)}
"""By the name that `--data` knows. Nothing of them is made before somebody asks."""

__all__ = ["CORPORA", "EmbeddedCorpus", "is_held_out"]
