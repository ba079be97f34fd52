"""The language models: `bigram`, `mini-gpt`, and the table and protocol that make them interchangeable.

`table.MODELS` lists them; `protocol.LanguageModel` says what training and sampling ask of one; `options.ModelOptions`
is what a user can choose.
"""
