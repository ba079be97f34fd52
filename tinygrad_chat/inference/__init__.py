"""From a trained model to text.

options.py     what a user can choose
choosing.py    one token from its logits
generation.py  token after token, with the key/value cache
"""
