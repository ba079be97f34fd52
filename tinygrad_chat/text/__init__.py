"""From text to batches: documents in, tokens on disk, windows out.

data.py         open_data: what `--data` names, as tokens
corpora.py      documents from files, folders, patterns and built-in names
finding.py      which files to read, and which are left out
conversations/  messages, the formats in which chats are stored, the chat template
embedded/       corpora that are generated on the fly
formats/        each file format as documents
standard_input.py  `--data -`, saved to a file
fetching.py     downloads with limits on size and time
download.py     the built-in corpora that are downloaded once and cached
tokenizers/     characters, raw bytes, BPE or numbers, each with special tokens
learning.py     trains a BPE tokenizer on a corpus
corpus_workers.py  generates embedded corpora in parallel for it, once
corpus_worker.py   the process that generates one
hub.py          data sets on the Hugging Face hub, as files
shares.py       sources with shares: which rows of a batch come from which
reading.py      one pass over the documents: hashed and counted
encoding_processes.py  encodes them in several processes
processes.py    how worker processes are started, sent requests and ended
split.py        what is held out: whole documents, or the end of a text
writing.py      writes the tokens to disk in the order of the split
token_store.py  a tokenized corpus on disk
token_cache.py  stores that are cached between runs
inventory.py    lists and removes them
dataset.py      tokens split into training and validation
mixture.py      several datasets with shares
batches.py      random windows for training, all windows in order for evaluation
packing.py      whole documents packed into rows
"""
