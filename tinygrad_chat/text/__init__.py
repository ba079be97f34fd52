"""From text to batches: where text comes from (corpora), how it becomes tokens (tokenizers), and how a model is fed.

corpora.py     documents from a file, a folder, a JSONL file or a built-in name
download.py    the built-in names that are fetched once and cached
tokenizers.py  characters or raw bytes, each with a beginning-of-sequence token
dataset.py     a tokenized corpus, split into training and validation
batches.py     random windows to train on, all windows in order to evaluate on
"""
