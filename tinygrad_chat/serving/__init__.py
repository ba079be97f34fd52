"""A model as a server that speaks OpenAI's API, and a page to chat on.

options.py    what a user can choose
requests.py   what may be asked: the types that check it and that /openapi.json is written from
errors.py     what is wrong with a request, as OpenAI's clients expect to be told
limits.py     who may ask, from where, and how much at a time
model.py      the model that answers, and a newer one of the same run
worker.py     the one thread that owns the engine; answers come from it token by token
questions.py  from what is asked to what the engine is asked
openai.py     answers as OpenAI's JSON
streams.py    an answer at once, or as events while it comes
tokens.py     texts to tokens and back, for those who count them themselves
looking.py    what the model makes of a chat, token by token
metrics.py    what was done so far, as Prometheus reads it
openapi.py    the description of it all
page.py       the page at / and its files, with the policy that lets them run
app.py        the application: which path does what
connection.py how long a connection may take to ask, and to read
server.py     the application on a port, until it is told to end

Only here, and in `cli/serve.py`, are starlette and uvicorn named: the extra `serve`.
"""
