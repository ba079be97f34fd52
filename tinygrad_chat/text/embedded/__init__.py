"""Corpora that come with the package as code: their conversations are made on the spot, and nothing is downloaded.

corpus.py      what such a corpus is, and what of it is kept for tasks
phrasings.py   how people ask: phrasings.toml, talk.toml, and what makes them look typed by hand
python.py      `python`: what the functions of this Python do
  documented.py   which ones those are, in the words of their documentation
  made_up.py      names that there are not
  questions.py    what is asked about either, and the answers
tutor.py       `tutor`: sums, units and words, worked out by code; asked as in tutor.toml
  lesson.py       a question, and its answer with calls of the calculator
  arithmetic.py   sums, problems in words, units
  spelling.py     words letter by letter, backwards, and their letters counted
  vocabulary.py   which words: real ones, and endlessly many made of their parts
itself.py      `self`: the model itself, its field (glossary.toml), and small talk
"""

from tinygrad_chat.text.embedded.corpus import EmbeddedCorpus, is_held_out
from tinygrad_chat.text.embedded.itself import SELF
from tinygrad_chat.text.embedded.python import PYTHON
from tinygrad_chat.text.embedded.tutor import TUTOR

CORPORA: dict[str, EmbeddedCorpus] = {corpus.name: corpus for corpus in (PYTHON, TUTOR, SELF)}
"""By the name that `--data` knows. Nothing of them is made before somebody asks."""

__all__ = ["CORPORA", "EmbeddedCorpus", "is_held_out"]
