"""What is in a file, as text: a module for each kind of file.

compression.py   .gz and .zst, opened as what is in them
encoding.py      which encoding a file has, told by its beginning, and its bytes as text
rows.py          .jsonl, .json and .csv: a document for each row
parquet.py       .parquet, by pyarrow
html.py          .html without its tags
data_file.py     a file of any kind as documents
"""
