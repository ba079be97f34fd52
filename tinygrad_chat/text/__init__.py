"""From text to batches: documents in, tokens on disk, windows out.

data.py         open_data: what `--data` names, as tokens
corpora.py      documents from files, folders, patterns and built-in names
finding.py      which files those are, and what is left out
conversations/  messages, the forms in which people keep them, their template
embedded/       corpora that are made on the spot
formats/        a file of each kind as documents
standard_input.py  `--data -`, kept as a file
fetching.py     what comes from the network, within bounds
download.py     the built-in names that are fetched once and cached
tokenizers/     characters, raw bytes, BPE or numbers, each with special tokens
learning.py     a BPE tokenizer for what a corpus holds
makers.py       embedded corpora that are made side by side for it, once
making.py       a process that makes one
hub.py          data sets of the Hugging Face hub, as files
shares.py       sources with shares: which rows of a batch are from which
reading.py      one pass over the documents: hashed and counted
encoding_processes.py  their tokens by several processes
processes.py    how processes are started, asked and ended
split.py        what is held out: whole documents, or the end of a text
writing.py      the tokens on their way to the disk, laid down as they are split
token_store.py  a tokenized corpus on disk
token_cache.py  stores that are kept from one start to the next
inventory.py    which those are, and how to be rid of them
dataset.py      tokens split into training and validation
mixture.py      several datasets with shares
batches.py      random windows to train on, all windows in order to evaluate on
packing.py      whole documents in rows
"""
