/** What the page asks of the server, and what can go wrong with it, said for a person. */

import { events } from "./events.js";

const ROOT = new URL("../../", import.meta.url);  // below whatever address a proxy has put the server
const KEY = "tgc.key";

/** A request that failed: `kind` says what can be done about it. */
export class Problem extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

export const setKey = (key) => sessionStorage.setItem(KEY, key);

export async function models() {
  return (await (await request("v1/models")).json()).data;
}

/** The tokens of a conversation, how likely each was, and the attention of one of them. */
export async function look(body) {
  return (await request("v1/look", body)).json();
}

/**
 * Yield an answer as it comes: {type, text} of what is said and of the calculator's calls, with them {tokens} that are read
 * and written, as numbers, then {ended: reason} and {used: tokens}.
 */
export async function* answer(path, body, signal) {
  const response = await request(path, { ...body, stream: true, return_token_ids: true, stream_options: { include_usage: true } }, signal);
  let whole = false;
  try {
    for await (const data of events(response.body)) {
      whole = data === "[DONE]";
      if (whole) return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw problemOf(500, chunk.error, null);
      if (chunk.usage) yield { used: chunk.usage };
      for (const choice of chunk.choices) {
        const { content, part } = choice.delta ?? { content: choice.text };
        const tokens = choice.prompt_token_ids ?? choice.token_ids;
        if (tokens) yield { tokens };
        if (content) yield { type: "text", text: content };
        if (part) yield part;
        if (choice.finish_reason) yield { ended: choice.finish_reason };
      }
    }
  } catch (error) {
    throw error instanceof TypeError ? gone() : error;  // how fetch says that a connection broke
  }
  if (!whole) throw gone();
}

async function request(path, body, signal) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...body && { "Content-Type": "application/json" }, ...key && { Authorization: `Bearer ${key}` } };
  let response;
  try {
    response = await fetch(new URL(path, ROOT), body
      ? { method: "POST", headers, signal, body: JSON.stringify(body) } : { headers, signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : gone();
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  throw problemOf(response.status, error ?? {}, response.headers.get("Retry-After"));
}

const gone = () => new Problem("gone", "The server does not respond. Is tgc serve still running?");

function problemOf(status, { message, code }, retryAfter) {
  const said = message || `The request failed with status ${status}.`;
  if (status === 401) return new Problem("key", "The server requires a key.");
  if (status === 429 || status === 503) {
    const when = retryAfter ? ` Try again in ${retryAfter} s.` : " Try again in a moment.";
    return new Problem("busy", `The server is busy.${when}`);
  }
  if (code === "context_length_exceeded") return new Problem("full", said);
  return new Problem("refused", said);
}
