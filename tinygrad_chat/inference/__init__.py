"""From a trained model to text.

options.py     what a user can choose
load.py        a model opened for sampling
sampler.py     one token from its logits
generation.py  token after token, with the key/value cache
text_model.py  a model with its tokenizer: text in, text out
"""
