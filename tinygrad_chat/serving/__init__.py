"""A model as a server that speaks OpenAI's API, and a page to chat on.

options.py    the options of the server
requests.py   request schemas: dataclasses that validate requests and define /openapi.json
errors.py     error responses in the format of OpenAI's API
limits.py     access control and size limits
model.py      the model that is served, reloaded when its run has a newer checkpoint
worker.py     the one thread that owns the engine and sends its tokens to the event loop
engine_requests.py  from API requests to engine requests
openai.py     answers as OpenAI's JSON
streams.py    an answer as one response, or streamed as server-sent events
tokens.py     /tokenize and /detokenize, for clients that count tokens
inspection.py  log-probabilities and attention of a chat, token by token
metrics.py    counters in Prometheus's format
openapi.py    the OpenAPI description
page.py       the chat page at / and its files, with their content security policy
app.py        the application: the routes and their handlers
connection.py timeouts for clients that send or read too slowly
server.py     run the application on a port until shutdown

Only this package and `cli/serve.py` import starlette and uvicorn: the extra `serve`.
"""
