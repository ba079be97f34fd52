"""Reads files as text: a module for each kind of file.

compression.py   .gz and .zst, decompressed as they are read
encoding.py      detects a file's encoding from its beginning, and decodes it
rows.py          .jsonl, .json and .csv: a document for each row
parquet.py       .parquet, with pyarrow
html.py          .html without its tags
data_file.py     a file of any kind as documents
"""
