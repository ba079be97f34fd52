"""From text to batches: documents in, tokens on disk, windows out.

data.py         open_data: what `--data` names, as tokens
corpora.py      documents from files, folders, patterns and built-in names
finding.py      which files those are, and what is left out
formats/        a file of each kind as documents
standard_input.py  `--data -`, kept as a file
download.py     the built-in names that are fetched once and cached
tokenizers/     characters, raw bytes, BPE or numbers, each with special tokens
learning.py     a BPE tokenizer for what a corpus holds
reading.py      one pass over the documents: hashed, counted and written as tokens
token_store.py  a tokenized corpus on disk
token_cache.py  stores that are kept from one start to the next
dataset.py      tokens split into training and validation
batches.py      random windows to train on, all windows in order to evaluate on
"""
