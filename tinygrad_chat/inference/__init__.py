"""From a trained model to text.

options.py      the options of sampling
load.py         a checkpoint opened for inference
processors.py   changes to logits and probabilities before a token is drawn
sampler.py      draw a token from its logits
text_stream.py  detokenize a stream of tokens, up to a stop string
request.py      a request to the engine, and the steps of its answer
calls.py        tool calls in an answer
rows.py         the rows of the key/value cache: prefill and decode
prefixes.py     the prefix cache: keys and values of finished requests
engine.py       continuous batching: requests join and leave between any two tokens
generation.py   text that continues a prompt
distributed.py  a model that several ranks sample from
turns.py        the turns of a conversation, with a local or a remote model
chat.py         a conversation with a local model
remote.py       a conversation with a server's model
answers.py      greedy answers to many questions at a time
inspection.py   the log-probability of each token, and attention weights
text_model.py   a model with its tokenizer: text in, text out
"""
