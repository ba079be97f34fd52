"""Corpora that come with the package as code: their conversations are generated on the fly, and nothing is downloaded.

corpus.py      the interface of such a corpus, and what is held out for tasks
phrasings.py   how people ask: phrasings.toml, talk.toml, and variations that look typed by hand
python.py      `python`: what the functions of this Python do
  documented.py   which ones those are, in the words of their documentation
  made_up.py      names that do not exist
  questions.py    questions about either, and the answers
tutor.py       `tutor`: sums, units and words, worked out by code; asked as in tutor.toml
  lesson.py       a question, and its answer with calculator calls
  arithmetic.py   sums, word problems, units
  spelling.py     words spelled out, backwards, and their letters counted
  vocabulary.py   the words: real ones, and endlessly many made of their parts
itself.py      `self`: the model itself, its field (glossary.toml), and small talk
"""

from tinygrad_chat.text.embedded.corpus import EmbeddedCorpus, is_held_out
from tinygrad_chat.text.embedded.itself import SELF
from tinygrad_chat.text.embedded.python import PYTHON
from tinygrad_chat.text.embedded.tutor import TUTOR

CORPORA: dict[str, EmbeddedCorpus] = {corpus.name: corpus for corpus in (PYTHON, TUTOR, SELF)}
"""By their `--data` names. Nothing is generated until it is read."""

__all__ = ["CORPORA", "EmbeddedCorpus", "is_held_out"]
