"""From a trained model to text.

options.py      what a user can choose
load.py         a model opened for sampling
processors.py   what stands between logits and a draw
sampler.py      one token from its logits
text_stream.py  tokens to text as they come, up to a stop string
request.py      what is asked of the engine, and the steps of its answer
calls.py        where an answer calls a tool
rows.py         what each request has read, in the key/value cache
prefixes.py     what earlier requests have read, for those that begin alike
engine.py       requests that join and leave: token after token
generation.py   a text that goes on from a prompt
distributed.py  a model that several ranks hold
turns.py        what was said in a conversation, whoever answers
chat.py         a conversation with a model
remote.py       one with a server elsewhere
answers.py      the likeliest answers to many questions at a time
looking.py      how likely each token was to a model, and where its attention was
text_model.py   a model with its tokenizer: text in, text out
"""
