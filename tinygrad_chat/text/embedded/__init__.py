"""Corpora that come with the package as code: their conversations are made on the spot, and nothing is downloaded.

corpus.py      what such a corpus is, and what of it is kept for tasks
phrasings.py   how people ask: phrasings.toml, talk.toml, and what makes them look typed by hand
python.py      `python`: what the functions of this Python do
  documented.py   which ones those are, in the words of their documentation
  made_up.py      names that there are not
  questions.py    what is asked about either, and the answers
itself.py      `self`: the model itself, its field (glossary.toml), and small talk
"""

from tinygrad_chat.text.embedded.corpus import EmbeddedCorpus, is_held_out
from tinygrad_chat.text.embedded.itself import SELF
from tinygrad_chat.text.embedded.python import PYTHON

CORPORA: dict[str, EmbeddedCorpus] = {corpus.name: corpus for corpus in (PYTHON, SELF)}
"""By the name that `--data` knows. Nothing of them is made before somebody asks."""

__all__ = ["CORPORA", "EmbeddedCorpus", "is_held_out"]
